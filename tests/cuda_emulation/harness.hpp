// What the test programs share: random inputs, the comparison, the list of results.
#pragma once
#include "emulate.hpp"

namespace test {
inline std::mt19937 random;
inline int passed = 0, failed = 0;

// What a block may have: on Hopper, or on the cards since Ampere that have least.
#if defined(KILN_WGMMA) && !KILN_WGMMA
const u32 SHARED = 98 * 1024;
#else
const u32 SHARED = 227 * 1024;
#endif

inline float uniform(float lo, float hi) { return lo + (hi - lo) * (float)(random() / 4294967296.0); }
inline float normal() {
    float s = 0;
    for (int i = 0; i < 12; i++) s += uniform(0, 1);
    return s - 6;
}
inline std::vector<u16> bf16_matrix(size_t n) {
    std::vector<u16> v(n);
    for (u16& x : v) x = emu::to_bf16(normal());
    return v;
}

inline void check(const std::string& name, bool ok, const std::string& detail) {
    (ok ? passed : failed)++;
    if (!ok) printf("FAILED %s: %s\n", name.c_str(), detail.c_str());
}

// The largest error relative to the bound of each element; above 1 or NaN is wrong.
struct Comparison {
    double worst = 0;
    size_t at = 0;
    void add(size_t i, double got, double want, double bound) {
        double e = std::fabs(got - want) / bound;
        if (!(e <= 1e300)) e = 1e300;
        if (e > worst) {
            worst = e;
            at = i;
        }
    }
    bool ok() const { return worst <= 1; }
    std::string text() const { return "element " + std::to_string(at) + " is off by " + std::to_string(worst) + " bounds"; }
};

inline void seed(int argc, char** argv) {
    const char* env = getenv("KILN_TEST_SEED");
    const unsigned s = argc > 1 ? (unsigned)atoi(argv[1]) : env ? (unsigned)atoi(env) : std::random_device{}() % 1000000;
    printf("KILN_TEST_SEED=%u\n", s);
    random.seed(s);
    gpu::random.seed(s + 1);
}

inline const char* name(emu::Sabotage s) {
    switch (s) {
    case emu::Sabotage::None: return "nothing";
    case emu::Sabotage::CpAsyncWait: return "cp.async.wait_group";
    case emu::Sabotage::ProxyFence: return "fence.proxy.async";
    case emu::Sabotage::WgmmaWait: return "wgmma.wait_group";
    case emu::Sabotage::WgmmaFence: return "wgmma.fence";
    case emu::Sabotage::FullWait: return "the wait for data";
    case emu::Sabotage::EmptyWait: return "the wait for a free stage";
    case emu::Sabotage::BlockSync: return "bar.sync";
    case emu::Sabotage::Swizzle: return "the swizzle of stores";
    case emu::Sabotage::Transposition: return "the right transposition of B";
    }
    return "?";
}

// Runs `attempt` (which says what went wrong, or nothing) without one instruction: it must notice.
inline void must_notice(const std::string& kernel, emu::Sabotage sabotage, const std::function<std::string()>& attempt) {
    emu::sabotage = sabotage;
    std::string said;
    for (int i = 0; i < 3 && said.empty(); i++) said = attempt();
    emu::sabotage = emu::Sabotage::None;
    check(kernel + " without " + name(sabotage), !said.empty(), "nothing was noticed");
    if (!said.empty()) printf("  %s without %s: %s\n", kernel.c_str(), name(sabotage), said.c_str());
}

inline int finish() {
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
} // namespace test
