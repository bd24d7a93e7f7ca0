// A random weight in NF4: what a kernel reads of it, and the same dense.
#pragma once
#include "harness.hpp"

namespace test {
inline const double CODE[16] = {-1.0,
                                -0.6961928009986877,
                                -0.5250730514526367,
                                -0.39491748809814453,
                                -0.28444138169288635,
                                -0.18477343022823334,
                                -0.09105003625154495,
                                0.0,
                                0.07958029955625534,
                                0.16093020141124725,
                                0.24611230194568634,
                                0.33791524171829224,
                                0.44070982933044434,
                                0.5626170039176941,
                                0.7229568362236023,
                                1.0};

struct Weight {
    std::vector<u32> codes;
    // In f32; with double quantisation what their parts come to.
    std::vector<float> absmax;
#if KILN_DOUBLE_QUANT
    std::vector<u8> scale_codes;
    std::vector<float> nested, map;
#endif
    float offset = 0;
    std::vector<u16> dense;

    Weight(int n, int k) {
        const size_t elements = (size_t)n * k, blocks = elements / 64;
        // bitsandbytes' bytes: element 2i in the high nibble of byte i.
        std::vector<u8> nibbles(elements);
        for (u8& v : nibbles) v = random() % 16;
        codes.assign(elements / 8, 0);
        for (size_t i = 0; i < elements / 2; i++)
            codes[i / 4] |= (u32)(nibbles[2 * i] << 4 | nibbles[2 * i + 1]) << (8 * (i % 4));
        absmax.resize(blocks);
#if KILN_DOUBLE_QUANT
        scale_codes.resize(blocks);
        nested.resize((blocks + 255) / 256);
        map.resize(256);
        offset = uniform(0.05f, 0.2f);
        for (u8& v : scale_codes) v = random() % 256;
        for (float& v : nested) v = uniform(0.01f, 0.1f);
        for (float& v : map) v = uniform(-1, 1);
        set_maxima();
#else
        for (float& v : absmax) v = uniform(1e-4f, 0.3f) * (random() % 8 == 0 ? 1e-3f : 1.0f);
        absmax[0] = 0;
#endif
        set_dense();
    }

#if KILN_DOUBLE_QUANT
    // The maxima that the parts stand for, and with them the numbers.
    void set_maxima() {
        for (size_t i = 0; i < absmax.size(); i++) {
            const volatile float product = map[scale_codes[i]] * nested[i / 256];
            absmax[i] = product + offset;
        }
        set_dense();
    }
#endif

    void set_dense() {
        dense.resize(codes.size() * 8);
        for (size_t i = 0; i < dense.size(); i++) {
            const u32 byte = codes[i / 8] >> (8 * (i / 2 % 4)) & 255, code = i % 2 ? byte & 15 : byte >> 4;
            dense[i] = emu::to_bf16((float)CODE[code] * absmax[i / 64]);
        }
    }

    void allow() {
        emu::allow(codes, false);
#if KILN_DOUBLE_QUANT
        emu::allow(scale_codes, false);
        emu::allow(nested, false);
        emu::allow(map, false);
#else
        emu::allow(absmax, false);
#endif
    }
};
} // namespace test
