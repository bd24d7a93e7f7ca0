// nf4_gemm and nf4_gemm_dx on random inputs against sums in f64. The macros of the variant are given
// on the command line.
#include "../../src/ops/gpu/cuda/nf4_gemm.cu"
#include "../../src/ops/gpu/cuda/nf4_gemm_dx.cu"
#include "harness.hpp"
#include "weights.hpp"

struct Case {
    int m, n, k;
    bool accumulate, misaligned;
    unsigned grid;
};

static std::string run(const Case& c, bool dx) {
    test::Weight weight(c.n, c.k);
    const std::vector<u16>& w = weight.dense;
    const int depth = dx ? c.n : c.k, cols = dx ? c.k : c.n;
    std::vector<u16> x = test::bf16_matrix((size_t)c.m * depth);
    std::vector<u16> y((size_t)c.m * cols, 0xffff);
    if (c.accumulate)
        for (u16& v : y) v = emu::to_bf16(test::normal() * 3);
    const std::vector<u16> before = y;
    // Any multiple of 8 that needs KILN_LOW times 16 of the last step.
    const int rank = KILN_LOW ? 16 * (KILN_LOW - 1) + (test::random() % 2 ? 8 : 16) : 0;
    std::vector<u16> left = test::bf16_matrix((size_t)c.m * rank), right = test::bf16_matrix((size_t)cols * rank);

    emu::buffers.clear();
    weight.allow();
    emu::allow(x, false);
    emu::allow(y, true);
    Nf4GemmParams p{(u64)c.m, (u64)c.n, (u64)c.k, c.accumulate ? 1u : 0u, 0, (u64)rank};
#if KILN_LOW
    emu::allow(left, false);
    emu::allow(right, false);
#define LOW_OPERANDS left.data(), right.data(),
#else
#define LOW_OPERANDS
#endif
#if KILN_DOUBLE_QUANT
    p.offset_bits = as_u32(weight.offset);
    const std::string error = emu::launch({c.grid}, {KILN_THREADS}, test::SHARED, dx ? nf4_gemm_dx : nf4_gemm, x.data(),
                                          weight.codes.data(), weight.scale_codes.data(), weight.nested.data(), weight.map.data(),
                                          LOW_OPERANDS y.data(), p);
#else
    const std::string error = emu::launch({c.grid}, {KILN_THREADS}, test::SHARED, dx ? nf4_gemm_dx : nf4_gemm, x.data(),
                                          weight.codes.data(), weight.absmax.data(), LOW_OPERANDS y.data(), p);
#endif
    if (!error.empty()) return error;

    test::Comparison compare;
    for (int i = 0; i < c.m; i++)
        for (int j = 0; j < cols; j++) {
            double sum = 0, size = 0;
            for (int d = 0; d < depth; d++) {
                const size_t at = dx ? (size_t)d * c.k + j : (size_t)j * c.k + d;
                const double v = (double)emu::from_bf16(x[(size_t)i * depth + d]) * emu::from_bf16(w[at]);
                sum += v;
                size += std::fabs(v);
            }
            for (int d = 0; d < rank; d++) {
                const size_t at = dx ? (size_t)d * cols + j : (size_t)j * rank + d;
                const double v = (double)emu::from_bf16(left[(size_t)i * rank + d]) * emu::from_bf16(right[at]);
                sum += v;
                size += std::fabs(v);
            }
            const size_t at = (size_t)i * cols + j;
            if (c.accumulate) sum += emu::from_bf16(before[at]);
            // Half a unit of the result's bf16 and the rounding of f32 sums.
            compare.add(at, emu::from_bf16(y[at]), sum, std::fabs(sum) * 0x1p-8 * 1.001 + size * 0x1p-21 + 1e-30);
        }
    return compare.ok() ? "" : compare.text();
}

int main(int argc, char** argv) {
    test::seed(argc, argv);
    const Case cases[] = {
        {1, 64, 64, false, false, 1},  {77, 128, 192, true, false, 1},   {300, 192, 320, false, false, 3},
        {257, 320, 128, true, false, 2}, {16, 64, 576, false, false, 132},
    };
    for (const Case& c : cases)
        for (bool dx : {false, true}) {
            char text[128];
            snprintf(text, sizeof text, "%s m=%d n=%d k=%d%s grid=%u", dx ? "nf4_gemm_dx" : "nf4_gemm", c.m, c.n, c.k,
                     c.accumulate ? " accumulate" : "", c.grid);
            const std::string error = run(c, dx);
            test::check(text, error.empty(), error);
        }
    const Case small{130, 128, 384, false, false, 1};
    using S = emu::Sabotage;
    for (S s : {S::CpAsyncWait, S::FullWait, S::EmptyWait, S::BlockSync, S::Swizzle,
#if KILN_WGMMA
                S::ProxyFence, S::WgmmaWait, S::WgmmaFence, S::Transposition
#endif
         })
        for (bool dx : {false, true})
            test::must_notice(dx ? "nf4_gemm_dx" : "nf4_gemm", s, [&] { return run(small, dx); });
    return test::finish();
}
