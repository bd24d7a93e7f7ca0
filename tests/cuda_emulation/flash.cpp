// flash_attention and its backward on random inputs against sums in f64.
#include "../../src/ops/gpu/cuda/flash_attention.cu"
#include "../../src/ops/gpu/cuda/flash_attention_backward.cu"
#include "harness.hpp"

struct Case {
    int seq, q_heads, kv_heads, batch, window, documents;
};

struct Bounded {
    double value = 0, size = 0;
    void add(double v, double slack = 0) {
        value += v;
        size += std::fabs(v) + slack;
    }
};

static std::string compare(const char* what, const std::vector<u16>& got, const std::vector<Bounded>& want) {
    test::Comparison c;
    // bf16 of the result, and of the weights (or their gradients) before the second product.
    for (size_t i = 0; i < want.size(); i++)
        c.add(i, emu::from_bf16(got[i]), want[i].value,
              std::fabs(want[i].value) * 0x1p-8 * 1.01 + want[i].size * (0x1p-8 * 1.01 + 0x1p-16) + 1e-6);
    return c.ok() ? "" : std::string(what) + ": " + c.text();
}

// `sabotaged`: which of the three launches runs under emu::sabotage.
static std::string run(const Case& c, int sabotaged = 0) {
    const emu::Sabotage sabotage = emu::sabotage;
    auto at_launch = [&](int launch) { emu::sabotage = launch == sabotaged ? sabotage : emu::Sabotage::None; };
    constexpr int D = KILN_D;
    const size_t heads = c.q_heads, kv_heads = c.kv_heads, seq = c.seq, rows = seq * c.batch;
    std::vector<u16> q = test::bf16_matrix(rows * heads * D), k = test::bf16_matrix(rows * kv_heads * D);
    std::vector<u16> v = test::bf16_matrix(rows * kv_heads * D), g = test::bf16_matrix(rows * heads * D);
    std::vector<u16> o(q.size(), 0xffff), dq(q.size(), 0xffff), dk(k.size(), 0xffff), dv(k.size(), 0xffff);
    std::vector<float> lse(rows * heads, NAN), delta(rows * heads);
    std::vector<u32> start(rows, 0);
    for (int b = 0; b < c.batch; b++)
        for (size_t i = 1; i < seq; i++)
            start[b * seq + i] = test::random() % seq < (unsigned)c.documents ? i : start[b * seq + i - 1];
    const float scale = 1.0f / std::sqrt((float)D);
    // q, o: [batch][row][head][D]; k, v: [batch][head][row][D].
    FlashParams p{seq,       heads,      kv_heads,   heads * D, (u64)D,         seq * heads * D, (u64)D, seq * D,
                  kv_heads * seq * D, heads * D, (u64)D, seq * heads * D, (u64)c.window, as_u32(scale), 0};
    auto at_q = [&](size_t b, size_t h, size_t i) { return ((b * seq + i) * heads + h) * D; };
    auto at_k = [&](size_t b, size_t h, size_t i) { return ((b * kv_heads + h) * seq + i) * D; };
    auto dot = [&](const std::vector<u16>& x, size_t i, const std::vector<u16>& y, size_t j) {
        double s = 0;
        for (int e = 0; e < D; e++) s += (double)emu::from_bf16(x[i + e]) * emu::from_bf16(y[j + e]);
        return s;
    };

    std::vector<Bounded> want_o(q.size()), want_dq(q.size()), want_dk(k.size()), want_dv(k.size());
    std::vector<double> want_lse(rows * heads);
    for (size_t b = 0; b < (size_t)c.batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < seq; i++) {
                const size_t kv = h / (heads / kv_heads), line = (b * heads + h) * seq + i, qi = at_q(b, h, i);
                size_t first = start[b * seq + i];
                if (c.window && i + 1 > (size_t)c.window) first = std::max(first, i + 1 - c.window);
                std::vector<double> w(i + 1, 0), dw(i + 1, 0), slack(i + 1, 0);
                double sum = 0, high = -1e300, del = 0;
                for (size_t j = first; j <= i; j++) high = std::max(high, w[j] = dot(q, qi, k, at_k(b, kv, j)) * scale);
                for (size_t j = first; j <= i; j++) sum += w[j] = std::exp(w[j] - high);
                want_lse[line] = high + std::log(sum);
                for (size_t j = first; j <= i; j++) {
                    w[j] /= sum;
                    dw[j] = dot(g, qi, v, at_k(b, kv, j));
                    del += w[j] * dw[j];
                    // dp - delta cancels: what f32 loses in the sums, in units of the bound's 2^-8.
                    for (int e = 0; e < D; e++)
                        slack[j] += std::fabs(emu::from_bf16(g[qi + e]) * emu::from_bf16(v[at_k(b, kv, j) + e])) * 0x1p-12;
                }
                delta[line] = (float)del;
                for (size_t j = first; j <= i; j++) {
                    const double ds = w[j] * (dw[j] - del) * scale;
                    const size_t kj = at_k(b, kv, j);
                    for (int e = 0; e < D; e++) {
                        want_o[qi + e].add(w[j] * emu::from_bf16(v[kj + e]));
                        want_dq[qi + e].add(ds * emu::from_bf16(k[kj + e]), w[j] * scale * slack[j] * std::fabs(emu::from_bf16(k[kj + e])));
                        want_dk[kj + e].add(ds * emu::from_bf16(q[qi + e]), w[j] * scale * slack[j] * std::fabs(emu::from_bf16(q[qi + e])));
                        want_dv[kj + e].add(w[j] * emu::from_bf16(g[qi + e]));
                    }
                }
            }

    emu::buffers.clear();
    for (auto* x : {&q, &k, &v, &g}) emu::allow(*x, false);
    for (auto* x : {&o, &dq, &dk, &dv}) emu::allow(*x, true);
    emu::allow(start, false);
    emu::allow(lse, true);
    emu::allow(delta, false);
    const unsigned tiles = (c.seq + KILN_FLASH_TILE - 1) / KILN_FLASH_TILE;
    const dim3 grid{tiles, (unsigned)c.q_heads, (unsigned)c.batch}, threads{KILN_FLASH_THREADS};
    at_launch(0);
    std::string e = emu::launch(grid, threads, 227 * 1024, flash_attention, q.data(), k.data(), v.data(), start.data(), o.data(), lse.data(), p);
    if (!e.empty()) return "forward: " + e;
    e = compare("o", o, want_o);
    if (!e.empty()) return e;
    for (size_t i = 0; i < lse.size(); i++)
        if (!(std::fabs(lse[i] - want_lse[i]) < 1e-5 * (1 + std::fabs(want_lse[i])))) return "log-sum-exp is wrong";
    at_launch(1);
    e = emu::launch(grid, threads, 227 * 1024, flash_attention_dq, q.data(), k.data(), v.data(), start.data(), g.data(), lse.data(), delta.data(), dq.data(), p);
    if (!e.empty()) return "dq: " + e;
    e = compare("dq", dq, want_dq);
    if (!e.empty()) return e;
    at_launch(2);
    e = emu::launch({tiles, (unsigned)c.kv_heads, (unsigned)c.batch}, threads, 227 * 1024, flash_attention_dkv, q.data(), k.data(), v.data(),
                    start.data(), g.data(), lse.data(), delta.data(), dk.data(), dv.data(), p);
    if (!e.empty()) return "dkv: " + e;
    e = compare("dk", dk, want_dk);
    return e.empty() ? compare("dv", dv, want_dv) : e;
}

int main(int argc, char** argv) {
    test::seed(argc, argv);
    const Case cases[] = {
        {1, 1, 1, 1, 0, 0}, {64, 2, 1, 1, 0, 0}, {150, 4, 2, 2, 0, 3}, {201, 2, 2, 1, 40, 1}, {130, 3, 1, 1, 64, 130},
    };
    for (const Case& c : cases) {
        char text[128];
        snprintf(text, sizeof text, "flash_attention d=%d seq=%d heads=%d/%d batch=%d window=%d documents=%d", KILN_D, c.seq,
                 c.q_heads, c.kv_heads, c.batch, c.window, c.documents);
        const std::string error = run(c);
        test::check(text, error.empty(), error);
    }
    using S = emu::Sabotage;
    const char* const kernels[] = {"flash_attention", "flash_attention_dq", "flash_attention_dkv"};
    for (S s : {S::CpAsyncWait, S::BlockSync})
        for (int i = 0; i < 3; i++) test::must_notice(kernels[i], s, [&] {
            emu::sabotage = s;
            return run({200, 1, 1, 1, 0, 0}, i);
        });
    return test::finish();
}
