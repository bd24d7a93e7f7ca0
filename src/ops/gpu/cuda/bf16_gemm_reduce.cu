// C[i] = scale * (planes[0][i] + planes[1][i] + ...) (+ C[i]): the second half of a split bf16_gemm.
//
// Launch: entry bf16_gemm_reduce; grid (min(ceil(M * N / 256), 4 * multiprocessors), 1, 1), any grid is right;
// block (256, 1, 1). Arguments: planes f32[planes * M * N], c (bf16, or f32 with KILN_OUT_F32); then by
// value the six 64-bit words of Bf16GemmReduceParams. No shared memory.
//
// variant: bf16_gemm_reduce bf16_gemm_reduce
// variant: bf16_gemm_reduce_f32 bf16_gemm_reduce -DKILN_OUT_F32=1
#ifndef KILN_OUT_F32
#define KILN_OUT_F32 0
#endif
#include "primitives.cuh"

// By value, after the buffers: six 64-bit words.
struct Bf16GemmReduceParams {
    u64 m, n, pitch_c, planes;
    u64 accumulate; // 1: add to what C holds
    u64 scale_bits; // an f32 in the low 32 bits
};

#if KILN_OUT_F32
typedef float Bf16GemmReduceOut;
#else
typedef u16 Bf16GemmReduceOut;
#endif

extern "C" __global__ void __launch_bounds__(256)
bf16_gemm_reduce(const float* __restrict__ planes, Bf16GemmReduceOut* c, const __grid_constant__ Bf16GemmReduceParams p) {
    const u64 size = p.m * p.n;
    const float scale = as_float((u32)p.scale_bits);
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += (u64)gridDim.x * blockDim.x) {
        float sum = 0;
        for (u64 s = 0; s < p.planes; s++) sum += ld_global_nc_f32(planes + s * size + i);
        Bf16GemmReduceOut* at = c + i / p.n * p.pitch_c + i % p.n;
        sum *= scale;
#if KILN_OUT_F32
        if (p.accumulate) sum += ld_global_f32(at);
        st_global_f32(at, sum);
#else
        if (p.accumulate) sum += as_float(ld_global_u16(at) << 16);
        st_global_u16(at, pack_bf16(sum, 0) & 0xffffu);
#endif
    }
}
