// What the attention kernels share. Causal attention with grouped query heads over packed documents:
// row i of a sequence attends the keys max(start[i], i - window + 1) ..= i (window 0: no limit), where
// start[i] is the first row of i's document and never falls along a sequence.
//
// A block is four warps over a tile of 64 rows; a warp owns 16 of them. Tiles lie in shared memory as
// rows of KILN_D elements, 16-byte chunk c of row r at c ^ (r mod 8), so that neither the copies nor
// ldmatrix meet a bank twice.
#ifndef KILN_FLASH
#define KILN_FLASH
#include "primitives.cuh"

#ifndef KILN_D
#define KILN_D 128
#endif
#define KILN_FLASH_TILE 64
#define KILN_FLASH_THREADS 128
#define KILN_FLASH_BYTES (KILN_FLASH_TILE * KILN_D * 2)

// By value, after the buffers: fifteen 64-bit words; strides in elements, the last axis contiguous,
// every stride a multiple of 8. q's strides also serve o, do and dq; k's also v, dk and dv.
struct FlashParams {
    u64 seq, q_heads, kv_heads;
    u64 q_row, q_head, q_batch;
    u64 k_row, k_head, k_batch;
    u64 o_row, o_head, o_batch; // of o and do
    u64 window;
    u64 scale_bits; // an f32 in the low 32 bits
    u64 reserved;
};

#define KILN_LOG2E 1.4426950408889634f
#define KILN_LN2 0.6931471805599453f
// Below every score; finite, so that a row without a key yet divides nothing by nothing.
#define KILN_NEVER (-1e30f)

KILN_FN u32 flash_at(u32 row, u32 chunk) { return row * (KILN_D * 2) + ((chunk ^ (row & 7)) << 4); }

// 64 rows from `row0`, zero past `seq`.
KILN_FN void flash_load(u32 to, const u16* from, u64 pitch, u32 row0, u32 seq, u32 t) {
    constexpr u32 CHUNKS = KILN_D / 8;
#pragma unroll
    for (u32 i = 0; i < KILN_FLASH_TILE * CHUNKS / KILN_FLASH_THREADS; i++) {
        const u32 id = t + i * KILN_FLASH_THREADS, r = id / CHUNKS, c = id % CHUNKS, row = row0 + r;
        cp_async(to + flash_at(r, c), row < seq ? from + row * pitch + c * 8 : from, row < seq ? 16 : 0);
    }
}

// Fragments: a 16 x 16 left operand of rows from `row`; two 16 x 8 right operands whose own index is
// the tile's row (B^T in memory) or whose contraction is.
KILN_FN void flash_left(u32 (&r)[4], u32 tile, u32 row, u32 kk, u32 lane) {
    ldmatrix(r, tile + flash_at(row + (lane & 15), kk * 2 + (lane >> 4)));
}
KILN_FN void flash_right_rows(u32 (&r)[4], u32 tile, u32 row, u32 kk, u32 lane) {
    ldmatrix(r, tile + flash_at(row + (lane & 7) + (lane >> 4) * 8, kk * 2 + (lane >> 3 & 1)));
}
KILN_FN void flash_right_depth(u32 (&r)[4], u32 tile, u32 kk, u32 column, u32 lane) {
    ldmatrix_trans(r, tile + flash_at(kk * 16 + (lane & 15), column / 8 + (lane >> 4)));
}

// s (16 x N*8) = rows of `left` from `row` times rows of `right` from `right_row`, over KILN_D.
template <int N>
KILN_FN void flash_scores(float (&s)[N][4], u32 left, u32 row, u32 right, u32 right_row, u32 lane) {
#pragma unroll
    for (int j = 0; j < N; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
    for (int kk = 0; kk < KILN_D / 16; kk++) {
        u32 a[4];
        flash_left(a, left, row, kk, lane);
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            u32 b[4];
            flash_right_rows(b, right, right_row + j * 8, kk, lane);
            mma_16816(s[j], a, b[0], b[1]);
            mma_16816(s[j + 1], a, b[2], b[3]);
        }
    }
}

// out (16 x KILN_D) += p (16 x N*8, rounded to bf16) times the rows of `right` from 16 * kk0.
template <int N>
KILN_FN void flash_apply(float (&out)[KILN_D / 8][4], const float (&p)[N][4], u32 right, u32 kk0, u32 lane) {
#pragma unroll
    for (int kk = 0; kk < N / 2; kk++) {
        const u32 a[4] = {pack_bf16(p[2 * kk][0], p[2 * kk][1]), pack_bf16(p[2 * kk][2], p[2 * kk][3]),
                          pack_bf16(p[2 * kk + 1][0], p[2 * kk + 1][1]), pack_bf16(p[2 * kk + 1][2], p[2 * kk + 1][3])};
#pragma unroll
        for (int n = 0; n < KILN_D / 8; n += 2) {
            u32 b[4];
            flash_right_depth(b, right, kk0 + kk, n * 8, lane);
            mma_16816(out[n], a, b[0], b[1]);
            mma_16816(out[n + 1], a, b[2], b[3]);
        }
    }
}

KILN_FN void flash_store(u16* to, u64 pitch, u32 row0, u32 seq, const float (&v)[KILN_D / 8][4], float low, float high,
                         u32 lane) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 row = row0 + lane / 4 + half * 8;
        if (row >= seq) continue;
        u16* line = to + row * pitch + lane % 4 * 2;
        const float f = half ? high : low;
#pragma unroll
        for (int n = 0; n < KILN_D / 8; n++)
            st_global_u32((u32*)(line + n * 8), pack_bf16(v[n][half * 2] * f, v[n][half * 2 + 1] * f));
    }
}

// The first key a row attends.
KILN_FN u32 flash_first(const u32* start, u32 row, u32 window) {
    const u32 s = ld_global_nc_u32(start + row);
    return window && row + 1 > window && row + 1 - window > s ? row + 1 - window : s;
}
#endif
