// A stack of one's own and the switch to another. On x86-64 the switch keeps the six registers that a call
// keeps; elsewhere ucontext does it, which asks the kernel each time.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace standin {
constexpr size_t kStack = 64 * 1024, kFibers = 1024;

inline char* stack_of(size_t fiber) {
    static char* const all = (char*)mmap(nullptr, kStack * kFibers, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return all + kStack * fiber;
}

#if defined(__x86_64__)
extern "C" void standin_switch(void** keep, void* take);
asm(R"(
.pushsection .text
.hidden standin_switch
.globl standin_switch
standin_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.popsection
)");
struct Fiber {
    void* top = nullptr;
    void begin(size_t n, void (*main)()) {
        // The stack as a call leaves it: `main` is what the first switch returns to.
        void** at = (void**)(stack_of(n) + kStack - 64);
        *--at = nullptr;
        *--at = (void*)main;
        top = at - 6;
    }
    void leave_to(Fiber& other) { standin_switch(&top, other.top); }
};
#else
struct Fiber {
    ucontext_t context;
    void begin(size_t n, void (*main)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack_of(n);
        context.uc_stack.ss_size = kStack;
        context.uc_link = nullptr;
        makecontext(&context, main, 0);
    }
    void leave_to(Fiber& other) { swapcontext(&context, &other.context); }
};
#endif
} // namespace standin
