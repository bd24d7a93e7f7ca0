// NF4 weights as bf16. A word holds 8 codes; its byte i holds element 2i in the high nibble and 2i+1
// in the low one. The value of a code is NF4[code] * absmax in f32, rounded once to bf16.
//
// All 64 elements of a quantisation block share 16 values, so a thread that dequantises a whole block
// rounds those 16 products once and then only picks. The picks are byte permutes: `prmt` looks up four
// nibbles at a time in eight bytes, so two lookups and a selection by the nibbles' top bits give four
// bytes out of sixteen; once for the low bytes of the values, once for the high ones.
#ifndef KILN_NF4
#define KILN_NF4
#include "primitives.cuh"

struct Nf4Table {
    u32 low[4], high[4]; // byte i of word j: the low (high) byte of the value of code 4j + i
};

KILN_FN Nf4Table nf4_table(float absmax) {
    const float code[16] = {-1.0f,
                            -0.6961928009986877f,
                            -0.5250730514526367f,
                            -0.39491748809814453f,
                            -0.28444138169288635f,
                            -0.18477343022823334f,
                            -0.09105003625154495f,
                            0.0f,
                            0.07958029955625534f,
                            0.16093020141124725f,
                            0.24611230194568634f,
                            0.33791524171829224f,
                            0.44070982933044434f,
                            0.5626170039176941f,
                            0.7229568362236023f,
                            1.0f};
    Nf4Table table;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const u32 a = pack_bf16(mul_rn(code[4 * j], absmax), mul_rn(code[4 * j + 1], absmax));
        const u32 b = pack_bf16(mul_rn(code[4 * j + 2], absmax), mul_rn(code[4 * j + 3], absmax));
        table.low[j] = prmt(a, b, 0x6420);
        table.high[j] = prmt(a, b, 0x7531);
    }
    return table;
}

// Four bytes of sixteen: selectors in the low 16 bits.
KILN_FN u32 nf4_pick(const u32 (&bytes)[4], u32 within, u32 which) {
    return prmt(prmt(bytes[0], bytes[1], within), prmt(bytes[2], bytes[3], within), which);
}

// Shifts to the right that a kernel may have another unit make.
struct Nf4Shifts {
    // `tops` (the top bits of nibbles) by one, and byte i of the lower or the upper eight.
    KILN_FN u32 which(u32 tops) const { return (tops >> 1) | 0x32103210u; }
    KILN_FN u32 by16(u32 v) const { return v >> 16; }
};
// As multiplications, which have a pipe of their own where permutes and logic fill theirs. The compiler
// would make shifts of them if it knew the numbers, so they come from one that is zero.
struct Nf4Multiplied {
    u32 half, places, upper;
    KILN_FN explicit Nf4Multiplied(u32 zero)
        : half(0x80000000u | zero), places(0x32103210u | zero), upper(0x10000u | zero) {}
    KILN_FN u32 which(u32 tops) const { return mad_hi(tops, half, places); }
    KILN_FN u32 by16(u32 v) const { return mad_hi(v, upper, 0); }
};

template <typename Shifts>
KILN_FN U32x4 nf4_word(const Nf4Table& table, u32 word, const Shifts& shift) {
    u32 within = word & 0x77777777u;  // the nibble's place among its eight
    u32 which = shift.which(word & 0x88888888u);
    U32x4 out;
    // Result byte i belongs to nibble i: elements 1, 0, 3, 2.
    u32 low = nf4_pick(table.low, within, which), high = nf4_pick(table.high, within, which);
    out.x = prmt(low, high, 0x4051);
    out.y = prmt(low, high, 0x6273);
    within = shift.by16(within);
    which = shift.by16(which);
    low = nf4_pick(table.low, within, which), high = nf4_pick(table.high, within, which);
    out.z = prmt(low, high, 0x4051);
    out.w = prmt(low, high, 0x6273);
    return out;
}
KILN_FN U32x4 nf4_word(const Nf4Table& table, u32 word) { return nf4_word(table, word, Nf4Shifts{}); }
#endif
