// C[M][N] = scale * A B^T (+ C), bf16 operands, f32 sums, C in bf16 or f32. For LoRA's skinny products
// and the dense head.
//
//   KILN_A_MN 0: A is [M][K], K contiguous;  1: [K][M], M contiguous
//   KILN_B_MN 0: B is [N][K], K contiguous;  1: [K][N], N contiguous
//   KILN_OUT_F32 1: C is f32
//   KILN_ALIGNED 0: any pitches and pointers (see gemm.cuh)
//   KILN_BM 128 or 256, KILN_BN 64 or 128: the block's tile
//   KILN_WGMMA 0: for cards without wgmma (see gemm.cuh)
//
// With gridDim.y > 1 the contraction is split: block row s sums steps [s, s+1) * ceil(steps / splits)
// and writes its own [M][N] f32 plane at C + s * M * N (KILN_OUT_F32 1, accumulate 0, scale 1); then
// bf16_gemm_reduce adds the planes in order, so the result does not depend on timing.
//
// Launch: entry bf16_gemm; grid (min(multiprocessors / splits, ceil(M / KILN_BM) * ceil(N / KILN_BN)),
// splits, 1), any smaller x is right too; block (384, 1, 1); no cluster.
// Arguments: a bf16, b bf16, c (bf16, or f32 with KILN_OUT_F32); then by value the eight 64-bit words of
// Bf16GemmParams. A pitch is the distance in elements between consecutive rows as they lie in memory.
// Shared memory: static, KILN_STAGES * (KILN_BM + KILN_BN) * KILN_BK * 2 + 16 * KILN_STAGES bytes; with
// KILN_DYNAMIC_SHARED=1 dynamic, ask for 1,024 more.
// Needs: M, N, K > 0; with KILN_ALIGNED=1 (the default) pitches and N multiples of 8 and pointers multiples
// of 16, with KILN_ALIGNED=0 only the elements' own alignment. Split: C holds splits * M * N f32.
//
// variant: bf16_gemm_256x128 bf16_gemm -DKILN_BM=256 -DKILN_BN=128
// variant: bf16_gemm_256x128_dynamic bf16_gemm -DKILN_BM=256 -DKILN_BN=128 -DKILN_DYNAMIC_SHARED=1
// variant: bf16_gemm_256x128_b_mn bf16_gemm -DKILN_BM=256 -DKILN_BN=128 -DKILN_B_MN=1
// variant: bf16_gemm_128x64 bf16_gemm
// variant: bf16_gemm_128x64_b_mn_f32 bf16_gemm -DKILN_B_MN=1 -DKILN_OUT_F32=1
// variant: bf16_gemm_128x64_any bf16_gemm -DKILN_ALIGNED=0
// variant: bf16_gemm_128x128_any bf16_gemm -DKILN_BN=128 -DKILN_ALIGNED=0
// variant: bf16_gemm_128x128_ab_mn_f32 bf16_gemm -DKILN_BN=128 -DKILN_A_MN=1 -DKILN_B_MN=1 -DKILN_OUT_F32=1
// variant: bf16_gemm_48k bf16_gemm -DKILN_BK=32 -DKILN_STAGES=3
// variant: bf16_gemm_mma_256x128 bf16_gemm -DKILN_WGMMA=0 -DKILN_BK=32 -DKILN_BM=256 -DKILN_BN=128
// variant: bf16_gemm_mma_128x128_ab_mn_f32 bf16_gemm -DKILN_WGMMA=0 -DKILN_BK=32 -DKILN_BN=128 -DKILN_A_MN=1 -DKILN_B_MN=1 -DKILN_OUT_F32=1
// variant: bf16_gemm_mma_128x128_any bf16_gemm -DKILN_WGMMA=0 -DKILN_BK=32 -DKILN_BN=128 -DKILN_ALIGNED=0
// variant: bf16_gemm_mma_128x64_b_mn bf16_gemm -DKILN_WGMMA=0 -DKILN_BK=32 -DKILN_B_MN=1
// elsewhere: sm_80 sm_86 sm_89 sm_100 sm_120 for mma
#ifndef KILN_BM
#define KILN_BM 128
#endif
#ifndef KILN_BN
#define KILN_BN 64
#endif
#ifndef KILN_BK
#define KILN_BK 64
#endif
#ifndef KILN_STAGES
#define KILN_STAGES 4
#endif
#ifndef KILN_A_MN
#define KILN_A_MN 0
#endif
#ifndef KILN_B_MN
#define KILN_B_MN 0
#endif
#ifndef KILN_OUT_F32
#define KILN_OUT_F32 0
#endif
#include "gemm.cuh"

// By value, after the buffers: eight 64-bit words. Pitches in elements.
struct Bf16GemmParams {
    u64 m, n, k;
    u64 pitch_a, pitch_b, pitch_c;
    u64 accumulate; // 1: add to what C holds
    u64 scale_bits; // an f32 in the low 32 bits
};

#if KILN_OUT_F32
typedef float Bf16GemmOut;
#else
typedef u16 Bf16GemmOut;
#endif

extern "C" __global__ void __launch_bounds__(KILN_THREADS, 1)
bf16_gemm(const u16* __restrict__ a, const u16* __restrict__ b, Bf16GemmOut* c,
          const __grid_constant__ Bf16GemmParams p) {
    typedef Tile<KILN_BM, KILN_BN, KILN_BK, KILN_STAGES, KILN_A_MN, KILN_B_MN> T;
    KILN_SHARED(base, T::SHARED)
    const u32 rows = (u32)p.m, cols = (u32)p.n, depth = (u32)p.k;
    const Walk walk{(rows + T::BM - 1) / T::BM, (cols + T::BN - 1) / T::BN};
    const u32 all = (depth + T::BK - 1) / T::BK, share = (all + gridDim.y - 1) / gridDim.y;
    const u32 first = min_u32(blockIdx.y * share, all), steps = min_u32(share, all - first);
    const u32 group = threadIdx.x / 128, t = threadIdx.x % 128, lane = t % 32;
    barriers_init<T>(base);

    if (group == 2) {
        const Operand oa(a, p.pitch_a, rows, depth), ob(b, p.pitch_b, cols, depth);
        Announcer<T> announcer;
        Ring<T::STAGES> ring;
        u32 tile = steps ? blockIdx.x : walk.count(), step = 0, tile_m = 0, tile_n = 0;
        if (tile < walk.count()) walk.at(tile, tile_m, tile_n);
        while (tile < walk.count() || announcer.due()) {
            if (tile < walk.count()) {
                mbar_wait(empty_barrier<T>(base, ring.stage()), ring.phase() ^ 1);
                const u32 at = base + ring.stage() * T::STAGE, k = (first + step) * T::BK;
                oa.template load<T::BM, T::BK, T::A_MN>(at, tile_m * T::BM, k, t);
                ob.template load<T::BN, T::BK, T::B_MN>(at + T::A_BYTES, tile_n * T::BN, k, t);
                if (++step == steps) {
                    step = 0;
                    tile += gridDim.x;
                    if (tile < walk.count()) walk.at(tile, tile_m, tile_n);
                }
                ring.next();
                announcer.filled++;
            }
            announcer.commit(base, lane);
        }
        return;
    }

    Ring<T::STAGES> ring;
    Bf16GemmOut* plane = c + (u64)blockIdx.y * rows * cols;
    const u64 pitch = gridDim.y > 1 ? cols : p.pitch_c;
    const bool vector = ((u64)plane & 15) == 0 && (pitch & (KILN_OUT_F32 ? 3 : 7)) == 0;
    const Output out{rows, cols, pitch, as_float((u32)p.scale_bits), p.accumulate != 0, vector};
    for (u32 number = 0; blockIdx.x + number * gridDim.x < walk.count(); number++) {
        Sums<T> acc;
        consume<T>(base, ring, number, steps, group, t, acc);
        u32 tile_m, tile_n;
        walk.at(blockIdx.x + number * gridDim.x, tile_m, tile_n);
#pragma unroll
        for (int mt = 0; mt < T::MT; mt++) {
            const u32 row0 = tile_m * T::BM + (group * T::MT + mt) * 64;
#if KILN_OUT_F32
            store_f32<T::BN>(acc.of[mt], plane, out, row0, tile_n * T::BN, t / 32, lane);
#else
            store_bf16<T::BN>(acc.of[mt], plane, out, row0, tile_n * T::BN, t / 32, lane);
#endif
        }
    }
}
