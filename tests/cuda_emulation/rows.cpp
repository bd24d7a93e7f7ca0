// nf4_rows on random inputs against sums in f64: several weights, low rank, bias, what is added, SwiGLU. The
// macros of the variant are given on the command line.
#include "../../src/ops/gpu/cuda/nf4_rows.cu"
#include "harness.hpp"
#include "weights.hpp"

struct Case {
    int m, k;
    int n[3];
};

// One weight and all that belongs to it.
struct Member {
    test::Weight weight;
    int n, rank;
    std::vector<u16> left, right;
#if KILN_BIAS == 2
    std::vector<float> bias;
    double bias_at(int j) const { return bias[j]; }
#else
    std::vector<u16> bias;
    double bias_at(int j) const { return emu::from_bf16(bias[j]); }
#endif

    Member(const Case& c, int n)
        : weight(n, c.k), n(n), rank(KILN_LOW == 8 ? 8 * (test::random() % 4) : KILN_LOW ? test::random() % 6 : 0),
          left(test::bf16_matrix((size_t)c.m * rank)), right(test::bf16_matrix((size_t)n * rank)) {
#if KILN_BIAS == 2
        for (int j = 0; j < n; j++) bias.push_back(test::normal());
#else
        bias = test::bf16_matrix(n);
#endif
        weight.allow();
        emu::allow(left, false);
        emu::allow(right, false);
        emu::allow(bias, false);
    }

    // The exact value of an element, and the sum of the sizes that are added up.
    void exact(const Case& c, const std::vector<u16>& x, int i, int j, double& sum, double& size) const {
        sum = size = 0;
        auto add = [&](double v) {
            sum += v;
            size += std::fabs(v);
        };
        for (int d = 0; d < c.k; d++)
            add((double)emu::from_bf16(x[(size_t)i * c.k + d]) * emu::from_bf16(weight.dense[(size_t)j * c.k + d]));
        for (int r = 0; r < rank; r++)
            add((double)emu::from_bf16(left[(size_t)i * rank + r]) * emu::from_bf16(right[(size_t)j * rank + r]));
        if (KILN_BIAS) add(bias_at(j));
    }
};

#if KILN_DOUBLE_QUANT
#define SCALES(i) members[i].weight.scale_codes.data(), members[i].weight.nested.data(),
#define MAP map.data(),
#else
#define SCALES(i) members[i].weight.absmax.data(),
#define MAP
#endif
#if KILN_LOW
#define LOW(i) members[i].left.data(), members[i].right.data(),
#else
#define LOW(i)
#endif
#if KILN_BIAS
#define BIAS(i) (const void*)members[i].bias.data(),
#else
#define BIAS(i)
#endif
#define MEMBER(i) members[i].weight.codes.data(), SCALES(i) LOW(i) BIAS(i)

static std::string run(const Case& c) {
    emu::buffers.clear();
    std::vector<u16> x = test::bf16_matrix((size_t)c.m * c.k);
    emu::allow(x, false);
    Nf4RowsParams p{};
    p.m = c.m;
    p.k = c.k;
    std::vector<Member> members;
    members.reserve(KILN_MEMBERS);
    for (int i = 0; i < KILN_MEMBERS; i++) {
        members.emplace_back(c, KILN_GATES ? c.n[0] : c.n[i]);
        p.n[i] = members[i].n;
        p.rank[i] = members[i].rank;
    }
#if KILN_DOUBLE_QUANT
    // The map is one for all weights: their maxima are made anew with it.
    std::vector<float>& map = members[0].weight.map;
    for (int i = 1; i < KILN_MEMBERS; i++) {
        test::Weight& w = members[i].weight;
        w.map = map;
        w.set_maxima();
    }
#endif
    for (int i = 0; i < KILN_MEMBERS; i++) p.offset_bits[i] = as_u32(members[i].weight.offset);
    std::vector<u16> added = test::bf16_matrix((size_t)c.m * c.n[0]);
    emu::allow(added, false);
    const int outputs = KILN_GATES ? 1 : KILN_MEMBERS;
    std::vector<std::vector<u16>> y(outputs);
    u32 grid = 0;
    for (int i = 0; i < outputs; i++) {
        y[i].assign((size_t)c.m * members[i].n, 0xffff);
        emu::allow(y[i], true);
        grid += (members[i].n + (KILN_GATES ? 15 : 31)) / (KILN_GATES ? 16 : 32);
    }
    const std::string error = emu::launch({grid}, {256}, test::SHARED, nf4_rows, x.data(), MEMBER(0)
#if KILN_MEMBERS > 1
                                          MEMBER(1)
#endif
#if KILN_MEMBERS > 2
                                          MEMBER(2)
#endif
                                          MAP
#if KILN_THEN == 1
                                          added.data(),
#endif
                                          y[0].data(),
#if KILN_MEMBERS > 1 && !KILN_GATES
                                          y[1].data(),
#endif
#if KILN_MEMBERS > 2
                                          y[2].data(),
#endif
                                          p);
    if (!error.empty()) return error;

    for (int o = 0; o < outputs; o++) {
        test::Comparison compare;
        for (int i = 0; i < c.m; i++)
            for (int j = 0; j < members[o].n; j++) {
                double sum, size;
                members[o].exact(c, x, i, j, sum, size);
                const size_t at = (size_t)i * members[o].n + j;
                double slack = size * 0x1p-21;
#if KILN_GATES
                double up, up_size;
                members[1].exact(c, x, i, j, up, up_size);
                const double sigmoid = 1 / (1 + std::exp(-sum));
                slack = (slack + std::fabs(sum) * 0x1p-20) * std::fabs(up) * 1.1 +
                        std::fabs(sum * sigmoid) * up_size * 0x1p-21;
                sum = sum * sigmoid * up;
#endif
                if (KILN_THEN == 1) sum += emu::from_bf16(added[at]);
                // Half a unit of the result's bf16 and the rounding of f32 sums.
                compare.add(at, emu::from_bf16(y[o][at]), sum, std::fabs(sum) * 0x1p-8 * 1.001 + slack + 1e-30);
            }
        if (!compare.ok()) return "output " + std::to_string(o) + ": " + compare.text();
    }
    return "";
}

int main(int argc, char** argv) {
    test::seed(argc, argv);
    const int most = KILN_ROWS;
    const Case cases[] = {
        {1, 64, {16, 32, 64}}, {2, 5312, {16, 24, 8}}, {most, 1024, {32, 16, 48}}, {most - 3, 1344, {40, 8, 100}}, {most / 2 + 1, 2112, {33, 1, 31}},
    };
    for (const Case& c : cases) {
        char text[128];
        snprintf(text, sizeof text, "nf4_rows m=%d k=%d n=%d", c.m, c.k, c.n[0]);
        const std::string error = run(c);
        test::check(text, error.empty(), error);
    }
    const Case small{most, 3072, {32, 32, 32}};
    for (emu::Sabotage s : {emu::Sabotage::CpAsyncWait, emu::Sabotage::BlockSync})
        test::must_notice("nf4_rows", s, [&] { return run(small); });
    return test::finish();
}
