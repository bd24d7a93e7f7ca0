// What the CUDA C++ that cubecl generates is made of, for g++: built-in variables, barriers and shuffles,
// each thread of a block a fiber where the kernel has one of them. Threads and blocks run in random order,
// and shared memory starts as NaN. The kernel itself stands in the namespace `kernel` (compile.py).
#pragma once
#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "fiber.hpp"
#include "launch.hpp"

#define __global__
#define __device__
#define __restrict__
#define __forceinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(N) __attribute__((aligned(N)))

struct uint3 {
    unsigned x, y, z;
};

namespace standin {
struct Thread {
    Fiber fiber;
    uint3 index;
    unsigned rank;
    bool done;
    // Waits until `*counter` is no longer `value`; runs where null.
    const unsigned* counter;
    unsigned value;
    unsigned turns;
};
struct Warp {
    unsigned arrived, generation, alive;
    uint64_t slots[2][32];
    bool given[2][32];
};
struct Block {
    uint3 index;
    unsigned alive, arrived, generation;
    std::vector<Warp> warps;
};
inline uint3 grid_shape, block_shape;
inline Block block;
inline std::vector<Thread> threads;
inline Thread* self;
inline Fiber scheduler;
inline char* shared;
inline std::mt19937 random{20251};

inline void wait_for(const unsigned& counter, unsigned value) {
    if (counter != value) return;
    self->counter = &counter;
    self->value = value;
    self->fiber.leave_to(scheduler);
    self->counter = nullptr;
}
// The last to come, or to end, opens the barrier.
inline void open_if_full(unsigned& arrived, unsigned alive, unsigned& generation) {
    if (arrived && arrived >= alive) {
        arrived = 0;
        generation++;
    }
}
inline void block_barrier() {
    const unsigned mine = block.generation;
    block.arrived++;
    open_if_full(block.arrived, block.alive, block.generation);
    wait_for(block.generation, mine);
}
inline void warp_barrier() {
    Warp& warp = block.warps[self->rank / 32];
    const unsigned mine = warp.generation;
    warp.arrived++;
    open_if_full(warp.arrived, warp.alive, warp.generation);
    wait_for(warp.generation, mine);
}
// All lanes that have not ended hand in a value; what lane `from` gave, or one's own. The two sets of
// slots take turns: a lane can be one exchange ahead of the others, never two.
template <class T>
T exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= 8);
    Warp& warp = block.warps[self->rank / 32];
    const unsigned lane = self->rank % 32, set = self->turns++ & 1;
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
    self->done = true;
    block.alive--;
    Warp& warp = block.warps[self->rank / 32];
    warp.alive--;
    open_if_full(warp.arrived, warp.alive, warp.generation);
    open_if_full(block.arrived, block.alive, block.generation);
    self->fiber.leave_to(scheduler);
}

// The threads of one block, each for itself where no barrier can occur.
inline const char* run_block(bool meets, std::vector<unsigned>& order) {
    const unsigned count = (unsigned)threads.size();
    if (!meets) {
        for (unsigned i : order) {
            self = &threads[i];
            run_thread(parameters);
        }
        return nullptr;
    }
    block.alive = count;
    block.arrived = block.generation = 0;
    block.warps.assign((count + 31) / 32, Warp{});
    for (unsigned i = 0; i < count; i++) {
        Thread& t = threads[i];
        block.warps[i / 32].alive++;
        t.done = false;
        t.counter = nullptr;
        t.turns = 0;
        t.fiber.begin(i, thread_main);
    }
    unsigned left = count;
    while (left) {
        bool moved = false;
        for (unsigned i : order) {
            Thread& t = threads[i];
            if (t.done || (t.counter && *t.counter == t.value)) continue;
            moved = true;
            self = &t;
            scheduler.leave_to(t.fiber);
            if (t.done) left--;
        }
        if (!moved) return "deadlock: threads wait for others that do not come";
    }
    return nullptr;
}

inline const char* launch(const Shape& shape, void** params, void (*thread)(void**), bool meets) {
    const auto triple = [](const unsigned* v) { return uint3{v[0], v[1], v[2]}; };
    grid_shape = triple(shape.grid);
    block_shape = triple(shape.block);
    parameters = params;
    run_thread = thread;
    const unsigned count = block_shape.x * block_shape.y * block_shape.z;
    threads.resize(count);
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; i++) {
        const unsigned x = i % block_shape.x, y = i / block_shape.x % block_shape.y;
        threads[i].index = {x, y, i / block_shape.x / block_shape.y};
        threads[i].rank = i;
        order[i] = i;
    }
    std::vector<char> memory(shape.shared + 256);
    shared = memory.data() + (256 - (uintptr_t)memory.data() % 256);
    const uint64_t blocks = (uint64_t)grid_shape.x * grid_shape.y * grid_shape.z;
    // Backwards as often as forwards.
    const bool backwards = random() & 1;
    for (uint64_t n = 0; n < blocks; n++) {
        const uint64_t i = backwards ? blocks - 1 - n : n;
        const uint64_t x = i % grid_shape.x, y = i / grid_shape.x % grid_shape.y;
        block.index = {(unsigned)x, (unsigned)y, (unsigned)(i / grid_shape.x / grid_shape.y)};
        memset(shared, 0xff, shape.shared);
        if ((random() & 7) == 0) std::shuffle(order.begin(), order.end(), random);
        if (const char* wrong = run_block(meets, order)) return wrong;
    }
    return nullptr;
}
} // namespace standin

#define threadIdx (standin::self->index)
#define blockIdx (standin::block.index)
#define blockDim (standin::block_shape)
#define gridDim (standin::grid_shape)
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
