// bf16_gemm, whole and split, with its reduction, on random inputs against sums in f64. The macros of
// the variant are given on the command line.
#include "../../src/ops/gpu/cuda/bf16_gemm.cu"
#include "../../src/ops/gpu/cuda/bf16_gemm_reduce.cu"
#include "harness.hpp"

struct Case {
    int m, n, k;
    bool accumulate;
    unsigned grid, splits;
    int pad; // added to every pitch
};

// One matrix of `rows` x `depth` (or its transpose in memory), with a pitch.
struct Matrix {
    std::vector<u16> data;
    size_t pitch;
    bool transposed;
    Matrix(int rows, int depth, bool transposed, int pad) : pitch((transposed ? rows : depth) + pad), transposed(transposed) {
        data = test::bf16_matrix(pitch * ((transposed ? depth : rows) - 1) + (transposed ? rows : depth));
    }
    double at(int row, int k) const { return emu::from_bf16(data[transposed ? k * pitch + row : row * pitch + k]); }
};

static double value(Bf16GemmOut v) {
#if KILN_OUT_F32
    return v;
#else
    return emu::from_bf16(v);
#endif
}
static Bf16GemmOut stored(float v) {
#if KILN_OUT_F32
    return v;
#else
    return emu::to_bf16(v);
#endif
}

static std::string run(const Case& c) {
    const Matrix a(c.m, c.k, KILN_A_MN, c.pad), b(c.n, c.k, KILN_B_MN, c.pad);
    const size_t pitch = c.n + c.pad;
    std::vector<Bf16GemmOut> out(pitch * c.m, stored(NAN));
    std::vector<bool> inside(out.size(), false);
    for (int i = 0; i < c.m; i++)
        for (int j = 0; j < c.n; j++) inside[i * pitch + j] = true;
    if (c.accumulate)
        for (auto& v : out) v = stored(test::normal());
    const std::vector<Bf16GemmOut> before = out;
    const float scale = test::uniform(0.3f, 2.0f);
    emu::buffers.clear();
    std::vector<u16> da = a.data, db = b.data;
    emu::allow(da, false);
    emu::allow(db, false);
    Bf16GemmParams p{(u64)c.m, (u64)c.n, (u64)c.k, a.pitch, b.pitch, pitch, c.accumulate ? 1u : 0u, as_u32(scale)};
    if (c.splits == 1) {
        emu::allow(out, true);
        const std::string e = emu::launch({c.grid}, {KILN_THREADS}, test::SHARED, bf16_gemm, da.data(), db.data(), out.data(), p);
        if (!e.empty()) return e;
    } else {
#if KILN_OUT_F32
        std::vector<float> planes((size_t)c.splits * c.m * c.n, NAN);
        emu::allow(planes, true);
        p.accumulate = 0;
        p.scale_bits = as_u32(1.0f);
        std::string e = emu::launch({c.grid, c.splits}, {KILN_THREADS}, test::SHARED, bf16_gemm, da.data(), db.data(), planes.data(), p);
        if (!e.empty()) return e;
        emu::allow(out, true);
        const Bf16GemmReduceParams r{(u64)c.m, (u64)c.n, pitch, c.splits, c.accumulate ? 1u : 0u, as_u32(scale)};
        e = emu::launch({3}, {256}, 0, bf16_gemm_reduce, (const float*)planes.data(), out.data(), r);
        if (!e.empty()) return e;
#endif
    }
    test::Comparison compare;
    for (int i = 0; i < c.m; i++)
        for (int j = 0; j < c.n; j++) {
            double sum = 0, size = 0;
            for (int k = 0; k < c.k; k++) {
                const double v = a.at(i, k) * b.at(j, k);
                sum += v;
                size += std::fabs(v);
            }
            sum *= scale;
            const size_t at = i * pitch + j;
            if (c.accumulate) sum += value(before[at]);
            const double unit = KILN_OUT_F32 ? 0x1p-22 : 0x1p-8 * 1.001;
            compare.add(at, value(out[at]), sum, std::fabs(sum) * unit + size * scale * 0x1p-20 + 1e-30);
        }
    for (size_t i = 0; i < out.size(); i++)
        if (!inside[i] && memcmp(&out[i], &before[i], sizeof out[i])) return "wrote between the rows";
    return compare.ok() ? "" : compare.text();
}

int main(int argc, char** argv) {
    test::seed(argc, argv);
    const Case cases[] = {
        {150, 16, 200, false, 2, 1, 0}, {1, 1, 1, false, 1, 1, 0},    {64, 4, 72, true, 1, 1, 0},
        {129, 65, 64, true, 1, 1, 7},   {136, 136, 8, true, 2, 1, 0}, {304, 64, 320, false, 5, 1, 8},
        {130, 136, 4, false, 1, 1, 0},  {256, 128, 104, true, 1, 1, 0},
#if KILN_OUT_F32
        {16, 100, 500, true, 1, 3, 0},  {64, 24, 129, false, 2, 4, 0}, {8, 8, 64, false, 1, 3, 3},
        {16, 104, 504, true, 1, 3, 0},
#endif
    };
    for (const Case& c : cases) {
        const int pitches = (KILN_A_MN ? c.m : c.k) | (KILN_B_MN ? c.n : c.k) | c.n | c.pad;
        if (KILN_ALIGNED && pitches % 8) continue;
        char text[128];
        snprintf(text, sizeof text, "bf16_gemm %dx%d %s%s%s m=%d n=%d k=%d%s grid=%u splits=%u pad=%d", KILN_BM, KILN_BN,
                 KILN_A_MN ? "T" : "N", KILN_B_MN ? "N" : "T", KILN_OUT_F32 ? " f32" : "", c.m, c.n, c.k,
                 c.accumulate ? " accumulate" : "", c.grid, c.splits, c.pad);
        const std::string error = run(c);
        test::check(text, error.empty(), error);
    }
    using S = emu::Sabotage;
    const Case small{136, 72, 384, false, 1, 1, 0};
    for (S s : {S::CpAsyncWait, S::FullWait, S::EmptyWait, S::BlockSync,
#if KILN_WGMMA
                S::ProxyFence, S::WgmmaWait, S::WgmmaFence, S::Transposition
#endif
         })
        test::must_notice("bf16_gemm", s, [&] { return run(small); });
    return test::finish();
}
