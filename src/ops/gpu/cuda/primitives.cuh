// The instructions the kernels are made of: inline PTX on a GPU, functions of the emulator
// (tests/cuda_emulation/emulate.hpp) when KILN_EMULATE is defined. Shared memory is named by its
// 32-bit address everywhere, and global memory is touched only through the functions below, so that
// the emulator sees every access. No toolkit header is needed.
#ifndef KILN_PRIMITIVES
#define KILN_PRIMITIVES

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) U32x4 {
    u32 x, y, z, w;
};
struct alignas(8) U32x2 {
    u32 x, y;
};

#ifndef KILN_DYNAMIC_SHARED
#define KILN_DYNAMIC_SHARED 0
#endif
#ifdef KILN_EMULATE
#include "emulate.hpp"
#define KILN_FN inline
#else
#define KILN_FN __device__ __forceinline__

// ---- shared memory -------------------------------------------------------------------------
// Static: for sm_90a ptxas 13.0 takes up to 227 KiB of it (older ones 48 KiB). Dynamic: the launch
// asks for BYTES + 1024, since the base is rounded up to 1024 here, which 128-byte swizzling needs;
// one that asked for less does nothing, rather than fault.
#if KILN_DYNAMIC_SHARED
KILN_FN u32 dynamic_shared_bytes() {
    u32 bytes;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
    return bytes;
}
#define KILN_SHARED(BASE, BYTES)                              \
    extern __shared__ __align__(1024) u8 kiln_shared_bytes[]; \
    if (dynamic_shared_bytes() < (BYTES) + 1024) return;      \
    const u32 BASE = ((u32)__cvta_generic_to_shared(kiln_shared_bytes) + 1023u) & ~1023u;
#else
#define KILN_SHARED(BASE, BYTES)                              \
    __shared__ __align__(1024) u8 kiln_shared_bytes[(BYTES)]; \
    const u32 BASE = (u32)__cvta_generic_to_shared(kiln_shared_bytes);
#endif

KILN_FN void st_shared(u32 at, U32x4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}
KILN_FN void st_shared_u32(u32 at, u32 v) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(v) : "memory"); }
KILN_FN u32 ld_shared_u32(u32 at) {
    u32 v;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(at) : "memory");
    return v;
}
KILN_FN U32x4 ld_shared(u32 at) {
    U32x4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

// ---- global memory -------------------------------------------------------------------------
KILN_FN U32x4 ld_global_nc(const void* p) {
    U32x4 v;
    asm volatile("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
KILN_FN U32x4 ld_global(const void* p) {
    U32x4 v;
    asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
KILN_FN float ld_global_nc_f32(const float* p) {
    float v;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(p));
    return v;
}
KILN_FN float ld_global_f32(const float* p) {
    float v;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}
KILN_FN u32 ld_global_nc_u32(const u32* p) {
    u32 v;
    asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
KILN_FN u32 ld_global_nc_u8(const u8* p) {
    u32 v;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
KILN_FN u32 ld_global_u32(const u32* p) {
    u32 v;
    asm volatile("ld.global.b32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
KILN_FN u32 ld_global_u16(const u16* p) {
    u16 v;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(v) : "l"(p) : "memory");
    return v;
}
KILN_FN void st_global(void* p, U32x4 v) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}
KILN_FN void st_global_u32(u32* p, u32 v) { asm volatile("st.global.b32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
KILN_FN void st_global_u16(u16* p, u32 v) {
    asm volatile("st.global.b16 [%0], %1;" ::"l"(p), "h"((u16)v) : "memory");
}
KILN_FN void st_global_f32(float* p, float v) { asm volatile("st.global.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory"); }

// ---- numbers -------------------------------------------------------------------------------
// Two floats rounded to nearest even as bf16, `lo` in the low half.
KILN_FN u32 pack_bf16(float lo, float hi) {
    u32 v;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(hi), "f"(lo));
    return v;
}
// The same number, from which the compiler computes anew what it would else keep in registers.
KILN_FN u32 anew(u32 v) {
    asm volatile("" : "+r"(v));
    return v;
}
KILN_FN float as_float(u32 v) { return __uint_as_float(v); }
KILN_FN u32 as_u32(float v) { return __float_as_uint(v); }
KILN_FN float mul_rn(float a, float b) { return __fmul_rn(a, b); }
KILN_FN float add_rn(float a, float b) { return __fadd_rn(a, b); }
KILN_FN float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
KILN_FN float log2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The upper half of the product, plus c.
KILN_FN u32 mad_hi(u32 a, u32 b, u32 c) {
    u32 v;
    asm("mad.hi.u32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(c));
    return v;
}
// Byte i of the result is byte (selector nibble i, low 3 bits) of {b, a}; selectors stay below 8.
KILN_FN u32 prmt(u32 a, u32 b, u32 selector) {
    u32 v;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(selector));
    return v;
}

// ---- order ---------------------------------------------------------------------------------
KILN_FN void block_sync() { __syncthreads(); }
KILN_FN void warp_sync() { __syncwarp(); }
KILN_FN void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
KILN_FN void mbar_init(u32 at, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}
KILN_FN void mbar_arrive(u32 at) {
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared::cta.b64 state, [%0];\n}" ::"r"(at) : "memory");
}
// Returns when the phase of this parity has completed (the phase before the first one has parity 1).
KILN_FN void mbar_wait(u32 at, u32 parity) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra finished;\n"
        "bra again;\n"
        "finished:\n}" ::"r"(at),
        "r"(parity)
        : "memory");
#else
    // Without an instruction that waits: others of the scheduler go on between two looks.
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.test_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra finished;\n"
        "nanosleep.u32 20;\n"
        "bra again;\n"
        "finished:\n}" ::"r"(at),
        "r"(parity)
        : "memory");
#endif
}

// ---- copies --------------------------------------------------------------------------------
// 16 bytes to shared memory of which `bytes` are read and the others zero.
KILN_FN void cp_async(u32 to, const void* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
KILN_FN void cp_async(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
KILN_FN void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
KILN_FN void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- warps ---------------------------------------------------------------------------------
KILN_FN float shfl_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
KILN_FN u32 shfl_xor(u32 v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
// Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
KILN_FN void ldmatrix(u32 (&r)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
KILN_FN void ldmatrix_trans(u32 (&r)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
// d (16 x 8, four sums a lane) += a (16 x 16) b (16 x 8).
KILN_FN void mma_16816(float* d, const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- warpgroups ----------------------------------------------------------------------------
KILN_FN void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
KILN_FN void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
KILN_FN void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Keeps the compiler from moving an accumulator's uses over the wait before this, or over the fence behind.
template <int R>
KILN_FN void wgmma_settled(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define KILN_F(i) "+f"(d[i])
#define KILN_F4(i) KILN_F(i), KILN_F(i + 1), KILN_F(i + 2), KILN_F(i + 3)
#define KILN_F16(i) KILN_F4(i), KILN_F4(i + 4), KILN_F4(i + 8), KILN_F4(i + 12)
#define KILN_R32                                                                                  \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define KILN_R64                                                                                        \
    KILN_R32                                                                                            \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
    "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d (64 x N, f32) = a (64 x 16) b (16 x N) + (keep ? d : 0), both operands in shared memory; MN says
// that an operand lies with its own index contiguous instead of the contraction's.
template <int N, int A_MN, int B_MN>
struct Wgmma;
template <int A_MN, int B_MN>
struct Wgmma<128, A_MN, B_MN> {
    static KILN_FN void run(float (&d)[64], u64 a, u64 b, int keep) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" KILN_R64
                     "}, %64, %65, p, 1, 1, %67, %68;\n}"
                     : KILN_F16(0), KILN_F16(16), KILN_F16(32), KILN_F16(48)
                     : "l"(a), "l"(b), "r"(keep), "n"(A_MN), "n"(B_MN));
    }
};
template <int A_MN, int B_MN>
struct Wgmma<64, A_MN, B_MN> {
    static KILN_FN void run(float (&d)[32], u64 a, u64 b, int keep) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" KILN_R32
                     "}, %32, %33, p, 1, 1, %35, %36;\n}"
                     : KILN_F16(0), KILN_F16(16)
                     : "l"(a), "l"(b), "r"(keep), "n"(A_MN), "n"(B_MN));
    }
};
#endif

KILN_FN u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
KILN_FN float bf16_low(u32 pair) { return as_float(pair << 16); }
KILN_FN float bf16_high(u32 pair) { return as_float(pair & 0xffff0000u); }

// The 64-bit description of an operand in shared memory: address, leading and stride byte offsets in
// units of 16 bytes, and the swizzle (1: 128 bytes, 2: 64 bytes) in the top bits.
KILN_FN u64 wgmma_operand(u32 at, u32 leading, u32 stride, u32 swizzle) {
    return (u64)((at & 0x3ffffu) >> 4) | ((u64)(leading >> 4) << 16) | ((u64)(stride >> 4) << 32) |
           ((u64)swizzle << 62);
}
#endif
