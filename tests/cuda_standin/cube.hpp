// What the CUDA C++ that cubecl generates is made of, for g++: barriers, shuffles and functions, each thread
// of a block a fiber where the kernel has a barrier. Threads and blocks run in random order, and shared
// memory starts as NaN. The kernel itself stands in the namespace `kernel` (compile.py).
#pragma once
#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "block.hpp"
#include "launch.hpp"

namespace standin {
using gpu::self;
struct Warp {
    gpu::Meeting meeting;
    unsigned alive;
    unsigned turns[32];
    uint64_t slots[2][32];
    bool given[2][32];
};
struct Block {
    gpu::Meeting meeting;
    unsigned alive;
    std::vector<Warp> warps;
};
inline Block block;
inline char* shared;

inline Warp& warp() { return block.warps[self->rank / 32]; }
inline void block_barrier() { block.meeting.meet("a block barrier", block.alive); }
inline void warp_barrier() { warp().meeting.meet("a warp instruction", warp().alive); }
// All lanes that have not ended hand in a value; what lane `from` gave, or one's own. The two sets of
// slots take turns: a lane can be one exchange ahead of the others, never two.
template <class T>
T exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= 8);
    Warp& warp = standin::warp();
    const unsigned lane = self->rank % 32, set = warp.turns[lane]++ & 1;
    memcpy(&warp.slots[set][lane], &value, sizeof(T));
    warp.given[set][lane] = true;
    warp_barrier();
    if (from < 32 && warp.given[set][from]) memcpy(&value, &warp.slots[set][from], sizeof(T));
    return value;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** params, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<std::remove_reference_t<A>>*)params[I]...);
}
template <class... A>
void call(void (*kernel)(A...), void** params) {
    call(kernel, params, std::index_sequence_for<A...>{});
}

inline void (*run_thread)(void**);
inline void** parameters;
inline void thread_main() {
    run_thread(parameters);
    // Those that wait may wait for the one that ends.
    Warp& warp = standin::warp();
    warp.meeting.open_if_full(--warp.alive);
    block.meeting.open_if_full(--block.alive);
}

// The threads of one block, each for itself where no barrier can occur.
inline void run_block(bool meets, const std::vector<unsigned>& order) {
    const unsigned count = (unsigned)order.size();
    if (!meets) {
        for (unsigned i : order) {
            self = &gpu::threads[i];
            run_thread(parameters);
        }
        return;
    }
    block.meeting = {};
    block.alive = count;
    block.warps.assign((count + 31) / 32, Warp{});
    for (unsigned i = 0; i < count; i++) block.warps[i / 32].alive++;
    gpu::take_turns(count, thread_main, [&]() -> const std::vector<unsigned>& { return order; });
}

inline const char* launch(const Shape& shape, void** params, void (*thread)(void**), bool meets) {
    const auto triple = [](const unsigned* v) { return dim3{v[0], v[1], v[2]}; };
    parameters = params;
    run_thread = thread;
    std::vector<unsigned> order(gpu::set_shape(triple(shape.grid), triple(shape.block)));
    std::iota(order.begin(), order.end(), 0);
    std::vector<char> memory(shape.shared + 256);
    shared = memory.data() + (256 - (uintptr_t)memory.data() % 256);
    const uint64_t blocks = gridDim.count();
    // Backwards as often as forwards.
    const bool backwards = gpu::random() & 1;
    for (uint64_t n = 0; n < blocks && gpu::failure.empty(); n++) {
        blockIdx = gridDim.place(backwards ? blocks - 1 - n : n);
        memset(shared, 0xff, shape.shared);
        if ((gpu::random() & 7) == 0) std::shuffle(order.begin(), order.end(), gpu::random);
        run_block(meets, order);
    }
    return gpu::failure.empty() ? nullptr : gpu::failure.c_str();
}
} // namespace standin

#define warpSize 32

inline void __syncthreads() { standin::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { standin::warp_barrier(); }
inline void __threadfence() {}
inline unsigned __activemask() { return ~0u; }
template <class T>
T __shfl_sync(unsigned, T v, unsigned lane) {
    return standin::exchange(v, lane % 32);
}
template <class T>
T __shfl_xor_sync(unsigned, T v, unsigned mask) {
    return standin::exchange(v, standin::self->rank % 32 ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T v, unsigned delta) {
    return standin::exchange(v, standin::self->rank % 32 - delta);
}
template <class T>
T __shfl_down_sync(unsigned, T v, unsigned delta) {
    return standin::exchange(v, standin::self->rank % 32 + delta);
}

inline float rsqrt(float v) { return 1 / sqrtf(v); }
inline double rsqrt(double v) { return 1 / ::sqrt(v); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
template <class A, class B>
std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B>, std::common_type_t<A, B>> max(A a, B b) {
    return a > b ? a : b;
}
template <class A, class B>
std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B>, std::common_type_t<A, B>> min(A a, B b) {
    return a < b ? a : b;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(unsigned v) { return v ? __builtin_clz(v) : 32; }
inline int __ffs(unsigned v) { return __builtin_ffs((int)v); }
inline float standin_max_nan(float a, float b) { return a != a ? a : b != b ? b : fmaxf(a, b); }
inline float standin_min_nan(float a, float b) { return a != a ? a : b != b ? b : fminf(a, b); }
// Fibers take turns at barriers alone.
inline float standin_atomic_add(float* at, float v) {
    const float before = *at;
    *at += v;
    return before;
}
