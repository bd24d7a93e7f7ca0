// What CUDA C++ knows by itself, and a block whose threads are fibers: they wait, meet and take turns.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fiber.hpp"

#define __global__
#define __device__
#define __restrict__
#define __forceinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(N) __attribute__((aligned(N)))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    uint64_t count() const { return (uint64_t)x * y * z; }
    // Where the i-th stands; x changes fastest.
    dim3 place(uint64_t i) const { return {(unsigned)(i % x), (unsigned)(i / x % y), (unsigned)(i / x / y)}; }
};
inline dim3 gridDim, blockDim, blockIdx;
#define threadIdx (gpu::self->index)

namespace gpu {
struct Thread {
    unsigned rank;
    dim3 index;
    // Waits while `*counter & mask` is `value`; can go on where null.
    const unsigned* counter;
    unsigned mask, value;
    const char* waits_for;
    bool ended; // and its fiber is ready for another block
    Fiber fiber;
};
inline Thread threads[kFibers];
inline Thread* self;
inline std::mt19937 random;
// What went wrong in the block, or nothing.
inline std::string failure;

// The block under way. A pass goes through the ranks once, in the order that `order` gives it.
struct Turns {
    void (*work)();
    std::function<const std::vector<unsigned>&()> order;
    const std::vector<unsigned>* pass;
    size_t at;
    bool moved;
    unsigned count, left;
    Fiber outside;
};
inline Turns turns;

inline std::string deadlock() {
    std::map<std::string, int> why;
    for (unsigned i = 0; i < turns.count; i++)
        if (!threads[i].ended) why[threads[i].waits_for]++;
    std::string text = "deadlock:";
    for (const auto& [what, n] : why) text += " " + std::to_string(n) + " threads wait for " + what + ";";
    return text;
}
inline void begin_pass() {
    turns.pass = &turns.order();
    turns.at = 0;
    turns.moved = false;
}
// Who goes on; null where all have ended or something went wrong.
inline Thread* next() {
    while (turns.left && failure.empty()) {
        while (turns.at < turns.pass->size()) {
            Thread& t = threads[(*turns.pass)[turns.at++]];
            if (t.ended || (t.counter && (*t.counter & t.mask) == t.value)) continue;
            turns.moved = true;
            return &t;
        }
        if (turns.moved)
            begin_pass();
        else
            failure = deadlock();
    }
    return nullptr;
}
// Lets others go on, from the thread that runs.
inline void yield() {
    Thread& before = *self;
    self = next();
    if (self != &before) before.fiber.switch_to(self ? self->fiber : turns.outside);
}
// A thread's fiber, block after block.
inline void live() {
    for (;;) {
        turns.work();
        self->ended = true;
        turns.left--;
        yield();
    }
}
// Each thread of a block does `work`, until all have ended or there is a `failure`.
inline void take_turns(unsigned count, void (*work)(), std::function<const std::vector<unsigned>&()> order) {
    turns.work = work;
    turns.order = std::move(order);
    turns.count = turns.left = count;
    for (unsigned i = 0; i < count; i++) {
        Thread& t = threads[i];
        // One that was left where it waited, when a block failed, starts anew.
        if (!t.ended) t.fiber.start(i, live);
        t.ended = false;
        t.counter = nullptr;
    }
    begin_pass();
    self = next();
    if (self) turns.outside.switch_to(self->fiber);
}

inline void wait_while(const char* what, const unsigned& counter, unsigned mask, unsigned value) {
    if ((counter & mask) != value) return;
    self->counter = &counter;
    self->mask = mask;
    self->value = value;
    self->waits_for = what;
    yield();
    self->counter = nullptr;
}

// Where threads wait until so many have come.
struct Meeting {
    unsigned arrived = 0, generation = 0;
    void open_if_full(unsigned expected) {
        if (!arrived || arrived != expected) return;
        arrived = 0;
        generation++;
    }
    void meet(const char* what, unsigned expected) {
        const unsigned mine = generation;
        arrived++;
        open_if_full(expected);
        wait_while(what, generation, ~0u, mine);
    }
};

// Before the blocks of a launch; how many threads each has.
inline unsigned set_shape(const dim3& grid, const dim3& block) {
    gridDim = grid;
    blockDim = block;
    failure.clear();
    const unsigned count = (unsigned)block.count();
    for (unsigned i = 0; i < count; i++) {
        threads[i].rank = i;
        threads[i].index = block.place(i);
    }
    return count;
}
} // namespace gpu
