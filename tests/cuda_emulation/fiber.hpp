// A fiber: a stack of its own, and the switch from one to another. ucontext starts it, which asks the
// kernel; from then on setjmp and longjmp switch, which do not.
#pragma once
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>

namespace gpu {
constexpr size_t kFibers = 1024, kStack = 128 * 1024;
// Not a power of two: the same depth of all stacks would lie in the same few sets of the caches.
constexpr size_t kStride = kStack + 4096 + 13 * 64;

// glibc's longjmp by its own name: the one that _FORTIFY_SOURCE puts in its place refuses another stack.
extern "C" [[noreturn]] void kiln_longjmp(jmp_buf, int) noexcept asm("_longjmp");

class Fiber {
  public:
    // Gives it stack `n`, on which the first switch to it calls `main`, which must not return.
    void start(size_t n, void (*main)()) {
        static char* const stacks = (char*)mmap(nullptr, kStride * kFibers, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = stacks + kStride * n;
        context.uc_stack.ss_size = kStack;
        context.uc_link = nullptr;
        makecontext(&context, first, 0);
        starting_ = this;
        main_ = main;
        if (!_setjmp(starter_)) setcontext(&context);
    }
    // From this one, which runs, to another; returns when something switches back. Not inlined: setjmp keeps
    // its caller's variables out of registers.
    [[gnu::noinline]] void switch_to(Fiber& other) {
        if (!_setjmp(here_)) kiln_longjmp(other.here_, 1);
    }

  private:
    static inline Fiber* starting_;
    static inline void (*main_)();
    static inline jmp_buf starter_;
    jmp_buf here_;

    static void first() {
        void (*const main)() = main_;
        if (!_setjmp(starting_->here_)) kiln_longjmp(starter_, 1);
        main();
    }
};
} // namespace gpu
