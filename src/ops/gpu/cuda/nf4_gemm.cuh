// The body of nf4_gemm.cu (TRANSPOSED false) and nf4_gemm_dx.cu (TRANSPOSED true).
#ifndef KILN_NF4_GEMM
#define KILN_NF4_GEMM
#include "gemm.cuh"
#include "nf4.cuh"

#ifndef KILN_DOUBLE_QUANT
#define KILN_DOUBLE_QUANT 0
#endif
#ifndef KILN_BM
#define KILN_BM 256
#endif
#ifndef KILN_BK
#define KILN_BK 64
#endif
#ifndef KILN_STAGES
#define KILN_STAGES 4
#endif
// Times 16: the depth of a product of low rank (LoRA's second one), in steps of its own; 0 for none.
#ifndef KILN_LOW
#define KILN_LOW 0
#endif

// By value, after the buffers: six 64-bit words.
struct Nf4GemmParams {
    u64 m, n, k;
    u64 accumulate;  // 1: add to what the output holds
    u64 offset_bits; // double quantisation: the f32 added to every absmax, in the low 32 bits
    u64 rank;        // with KILN_LOW: a multiple of 8, at most 16 * KILN_LOW
};

// With KILN_LOW: left[M][rank] times right is added, right[N][rank]^T in Y = X W^T, right[rank][K] in
// dX = dY W.
struct LowRank {
    const u16 *left, *right;
};

// absmax of a quantisation block, in two steps so that the loads of one do not wait for another's.
struct Nf4Scale {
#if KILN_DOUBLE_QUANT
    const u8* codes;
    const float *nested, *map;
    float offset;
    struct Part {
        u32 code, block;
    };
    KILN_FN Part fetch(u32 block) const { return {ld_global_nc_u8(codes + block), block}; }
    KILN_FN float value(Part part) const {
        return add_rn(mul_rn(ld_global_nc_f32(map + part.code), ld_global_nc_f32(nested + part.block / 256)), offset);
    }
#else
    const float* absmax;
    typedef float Part;
    KILN_FN Part fetch(u32 block) const { return ld_global_nc_f32(absmax + block); }
    KILN_FN float value(Part part) const { return part; }
#endif
};

// What a producer thread dequantises in one step: WORDS words of one row of W, inside one block.
template <int WORDS>
struct Nf4Piece {
    U32x4 words[WORDS / 4];
    Nf4Scale::Part scale;
    bool exists;
};

template <bool TRANSPOSED>
KILN_FN void nf4_gemm_body(u32 base, const u16* x, const u32* codes, const Nf4Scale& scales, const LowRank& low, u16* y,
                           const Nf4GemmParams& p) {
    // The contraction is over K of W[N][K] in Y = X W^T, over N in dX = dY W.
    typedef Tile<KILN_BM, 128, KILN_BK, KILN_STAGES, false, TRANSPOSED> T;
    constexpr int WORDS = T::BK * T::BN / 128 / 8;
    const u32 rows = (u32)p.m, n = (u32)p.n, k = (u32)p.k;
    const u32 cols = TRANSPOSED ? k : n, depth = TRANSPOSED ? n : k, steps = depth / T::BK, rank = (u32)p.rank;
    const Walk walk{(rows + T::BM - 1) / T::BM, (cols + T::BN - 1) / T::BN};
    const u32 group = threadIdx.x / 128, t = threadIdx.x % 128, lane = t % 32;
    barriers_init<T>(base);

    if (group == 2) {
        constexpr u32 LOW_STEPS = low_steps<T, KILN_LOW>();
        const Operand operand(x, depth, rows, depth);
        const Operand left(low.left, rank, rows, rank), right(low.right, TRANSPOSED ? cols : rank, cols, rank);
        // Where the thread's piece of W lies: its row of W and its first element in it, both within
        // the tile; and where that goes in the stage.
        u32 row, element, to;
        if (TRANSPOSED) {
            constexpr u32 PARTS = 64 / (WORDS * 8);
            row = t / PARTS % T::BK;
            const u32 column = t / PARTS / T::BK;
            element = column * 64 + t % PARTS * (WORDS * 8);
            to = column * (T::BK * 128) + row * 128 + t % PARTS * (WORDS * 16);
        } else {
            row = t;
            element = 0;
            to = row * (T::BK * 2);
        }
        auto fetch = [&](u32 tile_n, u32 step) {
            Nf4Piece<WORDS> piece;
            const u32 r = TRANSPOSED ? step * T::BK + row : tile_n * T::BN + row;
            const u32 e = (TRANSPOSED ? tile_n * T::BN : step * T::BK) + element;
            piece.exists = r < n && e < k;
#pragma unroll
            for (int i = 0; i < WORDS / 4; i++) piece.words[i] = U32x4{0, 0, 0, 0};
            if (piece.exists) {
                const u32* from = codes + ((u64)r * k + e) / 8;
#pragma unroll
                for (int i = 0; i < WORDS / 4; i++) piece.words[i] = ld_global_nc(from + i * 4);
                piece.scale = scales.fetch(r * (k / 64) + e / 64);
            }
            return piece;
        };
        u32 tile = blockIdx.x, step = 0, tile_m = 0, tile_n = 0;
        if (tile >= walk.count()) return;
        walk.at(tile, tile_m, tile_n);
        Nf4Piece<WORDS> piece = fetch(tile_n, 0);
        Ring<T::STAGES> ring;
        Announcer<T> announcer;
        while (tile < walk.count() || announcer.due()) {
            if (tile < walk.count()) {
                mbar_wait(empty_barrier<T>(base, ring.stage()), ring.phase() ^ 1);
                const u32 a = base + ring.stage() * T::STAGE, b = a + T::A_BYTES;
                const bool is_low = LOW_STEPS > 0 && step >= steps;
                if (is_low) {
                    const u32 at = (step - steps) * T::BK;
                    left.template load<T::BM, T::BK, false>(a, tile_m * T::BM, at, t);
                    right.template load<T::BN, T::BK, TRANSPOSED>(b, tile_n * T::BN, at, t);
                } else {
                    operand.template load<T::BM, T::BK, false>(a, tile_m * T::BM, step * T::BK, t);
                }
                const Nf4Piece<WORDS> now = piece;
                if (++step == steps + LOW_STEPS) {
                    step = 0;
                    tile += gridDim.x;
                    if (tile < walk.count()) walk.at(tile, tile_m, tile_n);
                }
                if (tile < walk.count() && step < steps) piece = fetch(tile_n, step);
                ring.next();
                announcer.filled++;
                if (is_low) {
                    announcer.commit(base, lane);
                    continue;
                }
                const Nf4Table table = nf4_table(now.exists ? scales.value(now.scale) : 0.0f);
#pragma unroll
                for (int i = 0; i < WORDS / 4; i++) {
                    const u32 word[4] = {now.words[i].x, now.words[i].y, now.words[i].z, now.words[i].w};
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        const u32 offset = to + (i * 4 + j) * 16;
                        st_shared(b + (TRANSPOSED ? swizzled<64>(offset) : swizzled<T::BK>(offset)),
                                  nf4_word(table, word[j]));
                    }
                }
            }
            announcer.commit(base, lane);
        }
        return;
    }

    Ring<T::STAGES> ring;
    const Output out{rows, cols, cols, 1.0f, p.accumulate != 0, ((u64)y & 15) == 0};
    for (u32 number = 0; blockIdx.x + number * gridDim.x < walk.count(); number++) {
        Sums<T> acc;
        consume<T, KILN_LOW>(base, ring, number, steps, group, t, acc);
        u32 tile_m, tile_n;
        walk.at(blockIdx.x + number * gridDim.x, tile_m, tile_n);
#pragma unroll
        for (int mt = 0; mt < T::MT; mt++)
            store_bf16<T::BN>(acc.of[mt], y, out, tile_m * T::BM + (group * T::MT + mt) * 64, tile_n * T::BN, t / 32, lane);
    }
}
#endif
