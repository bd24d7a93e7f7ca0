// Y_i[M][N_i] = X[M][K] W_i[N_i][K]^T for up to 16 rows of X (decoding) and up to three weights in NF4, by
// mma: each code is read once, and looked up and multiplied for all rows at once. Beside each product what
// a layer has there: one of low rank (LoRA's second), a bias; then something is added, or the first weight's
// SiLU times the second is the one output. Sums are f32, rounded once.
//
// A block has 32 rows of one weight (with SwiGLU 16 of each of the two), a warp 16 of them and every fourth
// 256 of the contraction. In a step each thread has a whole quantisation block of two rows of W, 64 codes
// that share a table (nf4.cuh), so its place in the contraction is unusual: number 8w + i of the thread's
// block stands at places 2t, 2t + 1, 2t + 8, 2t + 9 of a fragment. X lies in shared memory in that order: 16
// bytes for (word w, row of X, thread t), a word's after a gap of 16, so that neither the copies in nor the
// reads meet in a bank. Where W ends, X is zero there, so what a thread then holds of W may be anything finite.
//
// Launch: entry nf4_rows; grid (blocks of all weights, 1, 1): ceil(N_i / 32) each, with SwiGLU ceil(N / 16);
// block (256, 1, 1).
// Arguments: x bf16[M*K]; for each weight codes u32[N*K/8], absmax f32[N*K/64] (KILN_DOUBLE_QUANT: codes
// u8[N*K/64], nested f32[ceil(N*K/64 / 256)]), with KILN_LOW left bf16[M*R], right bf16[N*R], with KILN_BIAS
// bias (1: bf16, 2: f32); with KILN_DOUBLE_QUANT map f32[256]; with KILN_THEN=1 added bf16[M*N]; the outputs
// bf16[M*N]; then by value the 64-bit words of Nf4RowsParams.
// Shared memory: KILN_ROWS * 4,096 + 1,024 bytes; for 16 rows dynamic, ask for 67,584.
// Needs: 0 < M <= KILN_ROWS, K a multiple of 64, ranks multiples of KILN_LOW, every pointer a multiple of 16,
// N*K/64 < 2^32. Every element of Y is written.
//
// variant: nf4_rows nf4_rows
// variant: nf4_rows_dq nf4_rows -DKILN_DOUBLE_QUANT=1 -DKILN_MEMBERS=3 -DKILN_LOW=8 -DKILN_BIAS=1
// variant: nf4_rows_glu nf4_rows -DKILN_DOUBLE_QUANT=1 -DKILN_MEMBERS=2 -DKILN_LOW=8 -DKILN_THEN=2
// variant: nf4_rows_add nf4_rows -DKILN_DOUBLE_QUANT=1 -DKILN_LOW=1 -DKILN_THEN=1 -DKILN_BIAS=2
// variant: nf4_rows_16 nf4_rows -DKILN_ROWS=16 -DKILN_DOUBLE_QUANT=1 -DKILN_MEMBERS=3 -DKILN_LOW=8
// variant: nf4_rows_16_glu nf4_rows -DKILN_ROWS=16 -DKILN_DOUBLE_QUANT=1 -DKILN_MEMBERS=2 -DKILN_LOW=8 -DKILN_THEN=2
// elsewhere: sm_80 sm_86 sm_89 sm_100 sm_120
#include "nf4.cuh"

#ifndef KILN_ROWS
#define KILN_ROWS 8
#endif
#ifndef KILN_DOUBLE_QUANT
#define KILN_DOUBLE_QUANT 0
#endif
#ifndef KILN_MEMBERS
#define KILN_MEMBERS 1
#endif
// Numbers of a low-rank operand that are read at once; 0: there are none.
#ifndef KILN_LOW
#define KILN_LOW 0
#endif
#ifndef KILN_BIAS
#define KILN_BIAS 0
#endif
// 1: something is added, 2: SwiGLU.
#ifndef KILN_THEN
#define KILN_THEN 0
#endif

#define KILN_GATES (KILN_THEN == 2)

// By value, after the buffers: eleven 64-bit words, of which those of absent weights are not read.
struct Nf4RowsParams {
    u64 m, k;
    u64 n[3], rank[3];
    u64 offset_bits[3]; // double quantisation: the f32 added to every absmax, in the low 32 bits
};

// Of one weight, as the kernel is given it.
struct Nf4RowsWeight {
    const u32* codes;
#if KILN_DOUBLE_QUANT
    const u8* scale_codes;
    const float* nested;
#else
    const float* absmax;
#endif
#if KILN_LOW
    const u16 *left, *right;
#endif
#if KILN_BIAS
    const void* bias;
#endif
    u32 n, rank;
    float offset;
};

namespace nf4_rows_ {
constexpr u32 SPLITS = 4, STEP = SPLITS * 256, HALVES = KILN_ROWS / 8;
// X of a word and a split, and of a step.
constexpr u32 PLANE = HALVES * 512 + 16, STAGE = SPLITS * 8 * PLANE;

// A thread's copies of X: two rows are a step of 256 threads, one a row of 1,024 numbers.
struct Copies {
    u32 to, row, at, from;
    KILN_FN explicit Copies(u32 k) {
        const u32 q = threadIdx.x % 128, split = q / 32, t = q / 8 % 4, w = q % 8;
        row = threadIdx.x / 128;
        to = (split * 8 + w) * PLANE + row * 64 + t * 16;
        at = q * 8;
        from = row * k + at;
    }
    // Copies the numbers that the next step takes, zeros where there are none.
    KILN_FN void load(u32 base, const u16* x, u32 m, u32 k) {
#pragma unroll
        for (u32 j = 0; j < KILN_ROWS / 2; j++) {
            const bool exists = row + 2 * j < m && at < k;
            cp_async(base + to + j * 128, x + (exists ? from + 2 * j * k : 0), exists ? 16 : 0);
        }
        at += STEP;
        from += STEP;
        cp_async_commit();
    }
};

// What a thread holds of W: a quantisation block of two rows, and where it reads the next one.
struct Piece {
    U32x4 words[2][2];
    float scale[2];
#if KILN_DOUBLE_QUANT
    u32 scale_code[2], scale_block[2];
#endif
    const u32* codes[2];
    u32 at[2], block, blocks;

    KILN_FN Piece(const Nf4RowsWeight& of, const u32 (&rows)[2], u32 k, u32 first) : block(first), blocks(k / 64) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            words[r][0] = words[r][1] = U32x4{0, 0, 0, 0};
            scale[r] = 0;
#if KILN_DOUBLE_QUANT
            scale_code[r] = scale_block[r] = 0;
#endif
            at[r] = rows[r] * blocks + block;
            codes[r] = of.codes + ((u64)rows[r] * blocks + block) * 8;
        }
    }
    KILN_FN void read_half(int half) {
        if (block >= blocks) return;
#pragma unroll
        for (int r = 0; r < 2; r++) words[r][half] = ld_global_nc(codes[r] + 4 * half);
    }
    KILN_FN void read_scale(const Nf4RowsWeight& of) {
        if (block >= blocks) return;
#pragma unroll
        for (int r = 0; r < 2; r++) {
#if KILN_DOUBLE_QUANT
            scale_code[r] = ld_global_nc_u8(of.scale_codes + at[r]);
            scale_block[r] = at[r] / 256;
#else
            scale[r] = ld_global_nc_f32(of.absmax + at[r]);
#endif
        }
    }
    KILN_FN void forward() {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            codes[r] += STEP / 8;
            at[r] += STEP / 64;
        }
        block += STEP / 64;
    }
};

// The product of low rank and the bias of one element.
KILN_FN float beside(const Nf4RowsWeight& of, u32 row, u32 column) {
    float sum = 0;
#if KILN_LOW == 8
    const u16 *left = of.left + (u64)row * of.rank, *right = of.right + (u64)column * of.rank;
    for (u32 i = 0; i < of.rank; i += 8) {
        const U32x4 l = ld_global(left + i), r = ld_global(right + i);
        sum += bf16_low(l.x) * bf16_low(r.x) + bf16_high(l.x) * bf16_high(r.x);
        sum += bf16_low(l.y) * bf16_low(r.y) + bf16_high(l.y) * bf16_high(r.y);
        sum += bf16_low(l.z) * bf16_low(r.z) + bf16_high(l.z) * bf16_high(r.z);
        sum += bf16_low(l.w) * bf16_low(r.w) + bf16_high(l.w) * bf16_high(r.w);
    }
#elif KILN_LOW
    for (u32 i = 0; i < of.rank; i++)
        sum += bf16_low(ld_global_u16(of.left + (u64)row * of.rank + i)) *
               bf16_low(ld_global_u16(of.right + (u64)column * of.rank + i));
#endif
#if KILN_BIAS == 1
    sum += bf16_low(ld_global_u16((const u16*)of.bias + column));
#elif KILN_BIAS == 2
    sum += ld_global_f32((const float*)of.bias + column);
#endif
    return sum;
}
} // namespace nf4_rows_

#if KILN_DOUBLE_QUANT
#define KILN_SCALES(i) const u8 *__restrict__ scale_codes##i, const float *__restrict__ nested##i,
#define KILN_SCALES_OF(i) scale_codes##i, nested##i,
#define KILN_MAP const float *__restrict__ map,
#else
#define KILN_SCALES(i) const float *__restrict__ absmax##i,
#define KILN_SCALES_OF(i) absmax##i,
#define KILN_MAP
#endif
#if KILN_LOW
#define KILN_LOW_PAIR(i) const u16 *__restrict__ left##i, const u16 *__restrict__ right##i,
#define KILN_LOW_OF(i) left##i, right##i,
#else
#define KILN_LOW_PAIR(i)
#define KILN_LOW_OF(i)
#endif
#if KILN_BIAS
#define KILN_BIAS_OF(i) bias##i,
#define KILN_BIAS_PART(i) const void *__restrict__ bias##i,
#else
#define KILN_BIAS_OF(i)
#define KILN_BIAS_PART(i)
#endif
#define KILN_WEIGHT(i) const u32 *__restrict__ codes##i, KILN_SCALES(i) KILN_LOW_PAIR(i) KILN_BIAS_PART(i)
#define KILN_WEIGHT_OF(i)                                                                        \
    Nf4RowsWeight {                                                                              \
        codes##i, KILN_SCALES_OF(i) KILN_LOW_OF(i) KILN_BIAS_OF(i)(u32) p.n[i], (u32)p.rank[i], \
            as_float((u32)p.offset_bits[i])                                                      \
    }

extern "C" __global__ void __launch_bounds__(256, KILN_ROWS == 8 ? 3 : 2)
nf4_rows(const u16* __restrict__ x, KILN_WEIGHT(0)
#if KILN_MEMBERS > 1
         KILN_WEIGHT(1)
#endif
#if KILN_MEMBERS > 2
         KILN_WEIGHT(2)
#endif
         KILN_MAP
#if KILN_THEN == 1
         const u16* __restrict__ added,
#endif
         u16* y0,
#if KILN_MEMBERS > 1 && !KILN_GATES
         u16* y1,
#endif
#if KILN_MEMBERS > 2
         u16* y2,
#endif
         const __grid_constant__ Nf4RowsParams p) {
    using namespace nf4_rows_;
    KILN_SHARED(base, (2 * STAGE))
    const u32 m = (u32)p.m, k = (u32)p.k, steps = (k + STEP - 1) / STEP;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / SPLITS, split = warp % SPLITS;
    const u32 g = lane / 4, t = lane % 4;

    // The block's weight, and the first of its rows that this warp has.
    Nf4RowsWeight of = KILN_WEIGHT_OF(0);
    u16* y = y0;
    u32 block = blockIdx.x;
#if KILN_GATES
    if (group == 1) of = KILN_WEIGHT_OF(1);
    const u32 first = block * 16, mine = first;
#else
#if KILN_MEMBERS > 1
    u32 before = (of.n + 31) / 32;
    if (block >= before) {
        block -= before;
        of = KILN_WEIGHT_OF(1);
        y = y1;
#if KILN_MEMBERS > 2
        before = (of.n + 31) / 32;
        if (block >= before) {
            block -= before;
            of = KILN_WEIGHT_OF(2);
            y = y2;
        }
#endif
    }
#endif
    const u32 first = block * 32, mine = first + group * 16;
#endif
    // Rows beyond the last are computed as that, and not written.
    const u32 rows[2] = {min_u32(mine + g, of.n - 1), min_u32(mine + g + 8, of.n - 1)};

    float sums[HALVES][4];
#pragma unroll
    for (u32 h = 0; h < HALVES; h++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[h][i] = 0;
    Copies copies(k);
    copies.load(base, x, m, k);
    Piece piece(of, rows, k, split * 4 + t);
    piece.read_half(0);
    piece.read_half(1);
    piece.read_scale(of);
    piece.forward();
    const Nf4Multiplied shifts((u32)(p.m >> 32));
    const u32 mine_of_x = base + split * (8 * PLANE) + lane * 16;
    u32 stage = 0;
    for (u32 step = 0; step < steps; step++) {
#if KILN_DOUBLE_QUANT
#pragma unroll
        for (int r = 0; r < 2; r++)
            piece.scale[r] = add_rn(mul_rn(ld_global_nc_f32(map + piece.scale_code[r]),
                                           ld_global_nc_f32(of.nested + piece.scale_block[r])),
                                    of.offset);
#endif
        cp_async_wait<0>();
        // All threads' copies are there, and all have read what the next ones overwrite.
        block_sync();
        if (step + 1 < steps) copies.load(base + (STAGE - stage), x, m, k);
        const Nf4Table table[2] = {nf4_table(piece.scale[0]), nf4_table(piece.scale[1])};
        // Each part of the next block is read where this one's is no longer needed.
        piece.read_scale(of);
#pragma unroll
        for (u32 w = 0; w < 8; w++) {
            const U32x4 &low = piece.words[0][w / 4], &high = piece.words[1][w / 4];
            const u32 word[2] = {w % 4 == 0 ? low.x : w % 4 == 1 ? low.y : w % 4 == 2 ? low.z : low.w,
                                 w % 4 == 0 ? high.x : w % 4 == 1 ? high.y : w % 4 == 2 ? high.z : high.w};
            const U32x4 a = nf4_word(table[0], word[0], shifts), b = nf4_word(table[1], word[1], shifts);
            const u32 front[4] = {a.x, b.x, a.y, b.y}, back[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
            for (u32 h = 0; h < HALVES; h++) {
                const U32x4 v = ld_shared(mine_of_x + stage + w * PLANE + h * 512);
                mma_16816(sums[h], front, v.x, v.y);
                mma_16816(sums[h], back, v.z, v.w);
            }
            if (w % 4 == 3) piece.read_half(w / 4);
        }
        piece.forward();
        stage = STAGE - stage;
    }

    // The parts of the contraction, added in order: [split][row of X][32 columns].
    block_sync();
#pragma unroll
    for (u32 h = 0; h < HALVES; h++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = h * 8 + 2 * t + i % 2, column = group * 16 + g + i / 2 * 8;
            st_shared_u32(base + ((split * KILN_ROWS + row) * 32 + column) * 4, as_u32(sums[h][i]));
        }
    block_sync();
    auto total = [&](u32 row, u32 column) {
        float sum = 0;
#pragma unroll
        for (u32 s = 0; s < SPLITS; s++)
            sum += as_float(ld_shared_u32(base + ((s * KILN_ROWS + row) * 32 + column) * 4));
        return sum;
    };
    constexpr u32 COLUMNS = KILN_GATES ? 16 : 32;
#pragma unroll
    for (u32 i = threadIdx.x; i < KILN_ROWS * COLUMNS; i += 256) {
        const u32 row = i / COLUMNS, column = first + i % COLUMNS;
        if (row >= m || column >= of.n) continue;
#if KILN_GATES
        const Nf4RowsWeight gate_of = KILN_WEIGHT_OF(0), up_of = KILN_WEIGHT_OF(1);
        const float gate = total(row, i % COLUMNS) + beside(gate_of, row, column);
        const float up = total(row, i % COLUMNS + 16) + beside(up_of, row, column);
        float value = gate / (1.0f + exp2_approx(-1.44269504f * gate)) * up;
#else
        float value = total(row, i % COLUMNS) + beside(of, row, column);
#endif
        const u64 at = (u64)row * of.n + column;
#if KILN_THEN == 1
        value += bf16_low(ld_global_u16(added + at));
#endif
        st_global_u16(y + at, pack_bf16(value, 0.0f));
    }
}
