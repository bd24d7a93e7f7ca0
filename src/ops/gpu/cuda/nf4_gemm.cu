// Y[M][N] = X[M][K] W[N][K]^T, W in NF4, dequantised between global and shared memory; optionally
// added to what Y holds (f32 sum, one rounding).
//
// Launch: entry nf4_gemm; grid (min(multiprocessors, ceil(M / KILN_BM) * ceil(N / 128)), 1, 1), any
// smaller grid is right too; block (384, 1, 1); no cluster.
// Arguments: x bf16[M*K], codes u32[N*K/8], absmax f32[N*K/64], y bf16[M*N]; then by value the six 64-bit
// words of Nf4GemmParams. With KILN_DOUBLE_QUANT=1 instead of absmax: absmax codes u8[N*K/64], nested
// absmax f32[ceil(N*K/64 / 256)], dynamic map f32[256]. With KILN_LOW, before the output, left and right of
// LowRank in bf16.
// Shared memory: static, 196,672 bytes; with KILN_DYNAMIC_SHARED=1 dynamic, ask for 197,696. The 48k
// variant (KILN_BM=128, KILN_BK=32, KILN_STAGES=2) has 32,800 bytes. With KILN_WGMMA=0 and KILN_BK=32, for cards
// without wgmma: 98,368 bytes, dynamic ask for 99,392.
// Needs: N and K multiples of 64, M > 0, every pointer a multiple of 16, N*K/64 < 2^32. Every
// element of Y is written.
//
// variant: nf4_gemm nf4_gemm
// variant: nf4_gemm_dq nf4_gemm -DKILN_DOUBLE_QUANT=1
// variant: nf4_gemm_dynamic nf4_gemm -DKILN_DYNAMIC_SHARED=1
// variant: nf4_gemm_low1 nf4_gemm -DKILN_DOUBLE_QUANT=1 -DKILN_LOW=1 -DKILN_DYNAMIC_SHARED=1
// variant: nf4_gemm_low4 nf4_gemm -DKILN_DOUBLE_QUANT=1 -DKILN_LOW=4 -DKILN_DYNAMIC_SHARED=1
// variant: nf4_gemm_low6 nf4_gemm -DKILN_LOW=6 -DKILN_DYNAMIC_SHARED=1
// variant: nf4_gemm_48k nf4_gemm -DKILN_BM=128 -DKILN_BK=32 -DKILN_STAGES=2
// variant: nf4_gemm_mma nf4_gemm -DKILN_WGMMA=0 -DKILN_BK=32
// variant: nf4_gemm_mma_low1 nf4_gemm -DKILN_WGMMA=0 -DKILN_BK=32 -DKILN_DOUBLE_QUANT=1 -DKILN_LOW=1
// elsewhere: sm_80 sm_86 sm_89 sm_100 sm_120 for mma
#include "nf4_gemm.cuh"

extern "C" __global__ void __launch_bounds__(KILN_THREADS, 1)
nf4_gemm(const u16* __restrict__ x, const u32* __restrict__ codes,
#if KILN_DOUBLE_QUANT
         const u8* __restrict__ absmax_codes, const float* __restrict__ nested_absmax,
         const float* __restrict__ dynamic_map,
#else
         const float* __restrict__ absmax,
#endif
#if KILN_LOW
         const u16* __restrict__ left, const u16* __restrict__ right,
#endif
         u16* y, const __grid_constant__ Nf4GemmParams p) {
#if KILN_DOUBLE_QUANT
    const Nf4Scale scales{absmax_codes, nested_absmax, dynamic_map, as_float((u32)p.offset_bits)};
#else
    const Nf4Scale scales{absmax};
#endif
#if KILN_LOW
    const LowRank low{left, right};
#else
    const LowRank low{x, x};
#endif
    KILN_SHARED(base, (Tile<KILN_BM, 128, KILN_BK, KILN_STAGES, false, false>::SHARED))
    nf4_gemm_body<false>(base, x, codes, scales, low, y, p);
}
