// Runs a .cu kernel of src/ops/gpu/cuda on the CPU, block by block, each thread of a block a fiber.
// It is not a model of speed. It is adversarial about what a GPU leaves open:
//   - threads run in random order and yield at random points;
//   - shared memory starts as NaN, and nothing may be read by wgmma that was never written;
//   - cp.async destroys its destination when issued and delivers only at the wait;
//   - wgmma reads its operands when issued AND when waited for, and they must not have changed; the
//     accumulators change only at the wait; an operand written by st.shared or cp.async must have
//     passed fence.proxy.async in the thread that wrote it; wgmma.fence must precede a batch;
//   - every global access must lie inside a registered buffer;
//   - a block that cannot go on is reported as a deadlock.
// `sabotage` leaves one of these instructions out, to show that its absence is noticed.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "block.hpp"

namespace emu {
using gpu::random;
using gpu::self;

enum class Sabotage {
    None,
    CpAsyncWait,   // cp.async.wait_group does not wait
    ProxyFence,    // fence.proxy.async is left out
    WgmmaWait,     // wgmma.wait_group does not wait
    WgmmaFence,    // wgmma.fence is left out
    FullWait,      // a wait of parity-0-first barriers (data ready) returns at once
    EmptyWait,     // a wait of parity-1-first barriers (slot free) returns at once
    BlockSync,     // __syncthreads and named barriers are left out
    Swizzle,       // st.shared writes 16-byte chunks unswizzled
    Transposition, // wgmma is told the other major-ness of B
};

struct Failure {
    std::string what;
};

struct Copy {
    u32 to;
    const void* from;
    u32 bytes;
};

// What a thread has issued that may not have happened yet.
struct Issued {
    std::vector<Copy> open_copies;
    std::deque<std::vector<Copy>> copy_groups;
    std::vector<u32> unfenced;
    struct Pending {
        size_t op;
        float* accumulators;
        bool keep;
    };
    size_t next_op = 0;
    bool wgmma_fenced = false;
    std::vector<Pending> open_ops;
    std::deque<std::vector<Pending>> op_groups;
};

struct Op {
    u64 a, b;
    int n, a_mn, b_mn;
    std::vector<u16> a_data, b_data; // 64 x 16 and n x 16
};

struct Barrier {
    u32 count = 0, pending = 0, phase = 0;
};

struct Warp {
    gpu::Meeting meeting;
    int kind = 0;
    void* args[32] = {};
};

constexpr u32 kArena = 228 * 1024;

struct Block {
    std::vector<Issued> issued; // per thread
    std::vector<u8> arena;
    std::vector<int> writer;   // per 16-byte chunk: 1 + the thread whose generic write is not fenced
    std::vector<u8> in_flight; // per 16-byte chunk: a cp.async has been issued and not waited for
    u32 shared_bytes = 0, shared_limit = 0;
    std::map<u32, Barrier> barriers;
    std::map<u32, gpu::Meeting> named;
    std::vector<Warp> warps;
    std::vector<std::vector<Op>> ops; // per warpgroup
};

struct Buffer {
    const u8* begin;
    const u8* end;
    bool writable;
};

inline Block* block = nullptr;
inline std::vector<Buffer> buffers;
inline Sabotage sabotage = Sabotage::None;

inline Issued& issued() { return block->issued[self->rank]; }

[[noreturn]] inline void fail(const std::string& what) { throw Failure{what}; }

inline void maybe_yield() {
    if ((random() & 127) == 0) gpu::yield();
}

// ---- registered global memory --------------------------------------------------------------
template <class T>
void allow(std::vector<T>& data, bool writable) {
    buffers.push_back({(const u8*)data.data(), (const u8*)(data.data() + data.size()), writable});
}

inline void check_global(const void* p, size_t bytes, bool write, const char* what) {
    const u8* at = (const u8*)p;
    if ((uintptr_t)at % (bytes ? bytes : 1)) fail(std::string(what) + ": misaligned global access");
    for (const Buffer& b : buffers)
        if (at >= b.begin && at + bytes <= b.end) {
            if (write && !b.writable) fail(std::string(what) + ": writes a read-only buffer");
            return;
        }
    fail(std::string(what) + ": global access outside every buffer");
}

template <class T>
T load(const void* p, const char* what) {
    check_global(p, sizeof(T), false, what);
    T v;
    memcpy(&v, p, sizeof(T));
    return v;
}
template <class T>
void store(void* p, T v, const char* what) {
    check_global(p, sizeof(T), true, what);
    memcpy(p, &v, sizeof(T));
}

// ---- shared memory -------------------------------------------------------------------------
inline u32 shared(u32 bytes) {
    if (bytes > block->shared_limit) fail("the kernel uses more shared memory than its launch gives");
    block->shared_bytes = bytes;
    return 0;
}
inline u8* shared_at(u32 at, u32 bytes, const char* what) {
    if (at % bytes) fail(std::string(what) + ": misaligned shared access");
    if (at + bytes > block->shared_bytes) fail(std::string(what) + ": shared access out of range");
    return block->arena.data() + at;
}
inline void generic_write(u32 at) {
    block->writer[at / 16] = (int)self->rank + 1;
    issued().unfenced.push_back(at / 16);
}

// ---- wgmma ---------------------------------------------------------------------------------
inline float from_bf16(u16 v) { return std::bit_cast<float>((u32)v << 16); }
inline u16 to_bf16(float v) {
    const u32 bits = std::bit_cast<u32>(v);
    if (v != v) return (u16)((bits >> 16) | 0x40);
    return (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The address of element (i of the operand's own index, k of the contraction) under a descriptor.
inline u32 operand_address(u64 d, bool mn_major, int i, int k) {
    const u32 start = (u32)(d & 0x3fff) << 4, leading = (u32)(d >> 16 & 0x3fff) << 4;
    const u32 stride = (u32)(d >> 32 & 0x3fff) << 4, mode = (u32)(d >> 62);
    if (d >> 49 & 7) fail("wgmma: a base offset is not modelled");
    if (mode == 0) fail("wgmma: operands without swizzle are not modelled");
    const u32 width = mode == 1 ? 128 : mode == 2 ? 64 : 32;
    u32 at = start;
    if (mn_major) {
        const int group = (int)width / 2;
        at += (u32)(i / group) * leading + (u32)(i % group) * 2 + (u32)(k % 8) * width + (u32)(k / 8) * stride;
    } else {
        at += (u32)(i / 8) * stride + (u32)(i % 8) * width + (u32)k * 2;
    }
    return at ^ ((at >> 7 & (width / 16 - 1)) << 4);
}

inline void read_operand(u64 d, bool mn_major, int rows, std::vector<u16>& out, bool check) {
    out.resize((size_t)rows * 16);
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < 16; k++) {
            const u32 at = operand_address(d, mn_major, i, k);
            const u8* p = shared_at(at, 2, "wgmma operand");
            u16 v;
            memcpy(&v, p, 2);
            if (check) {
                if (block->in_flight[at / 16]) fail("wgmma reads shared memory that a cp.async may still be writing");
                if (block->writer[at / 16]) fail("wgmma reads shared memory written without fence.proxy.async");
                if (v == 0xffff) fail("wgmma reads shared memory that was never written");
            }
            out[(size_t)i * 16 + k] = v;
        }
}

inline void wgmma_issue(float* d, u64 a, u64 b, int n, int a_mn, int b_mn, int keep) {
    maybe_yield();
    if (!issued().wgmma_fenced) fail("wgmma without wgmma.fence after registers were touched");
    if (sabotage == Sabotage::Transposition) b_mn = !b_mn;
    std::vector<Op>& ops = block->ops[self->rank / 128];
    const size_t id = issued().next_op++;
    if (id == ops.size()) {
        Op op{a, b, n, a_mn, b_mn, {}, {}};
        read_operand(a, a_mn, 64, op.a_data, true);
        read_operand(b, b_mn, n, op.b_data, true);
        ops.push_back(std::move(op));
    } else {
        const Op& op = ops[id];
        if (op.a != a || op.b != b || op.n != n || op.a_mn != a_mn || op.b_mn != b_mn)
            fail("the warps of a warpgroup issue different wgmma");
    }
    issued().open_ops.push_back({id, d, keep != 0});
}

inline void wgmma_execute(const Issued::Pending& pending) {
    const Op& op = block->ops[self->rank / 128][pending.op];
    const int lane = self->rank % 32, warp = self->rank % 128 / 32;
    if (lane == 0) {
        std::vector<u16> now;
        read_operand(op.a, op.a_mn, 64, now, false);
        if (now != op.a_data) fail("operand A of a wgmma changed while it was in flight");
        read_operand(op.b, op.b_mn, op.n, now, false);
        if (now != op.b_data) fail("operand B of a wgmma changed while it was in flight");
    }
    for (int i = 0; i < op.n / 2; i++) {
        const int row = warp * 16 + lane / 4 + 8 * (i >> 1 & 1), col = 8 * (i / 4) + lane % 4 * 2 + (i & 1);
        float sum = 0;
        for (int k = 0; k < 16; k++)
            sum += from_bf16(op.a_data[(size_t)row * 16 + k]) * from_bf16(op.b_data[(size_t)col * 16 + k]);
        pending.accumulators[i] = pending.keep ? pending.accumulators[i] + sum : sum;
    }
}

// ---- warp collectives ----------------------------------------------------------------------
inline void warp_collective(int kind, void* args, void (*compute)(void**)) {
    Warp& warp = block->warps[self->rank / 32];
    if (warp.meeting.arrived && warp.kind != kind) fail("the lanes of a warp meet in different instructions");
    warp.kind = kind;
    warp.args[self->rank % 32] = args;
    if (warp.meeting.arrived == 31) compute(warp.args);
    warp.meeting.meet("a warp instruction", 32);
}

// ---- launch --------------------------------------------------------------------------------
inline std::function<void()> body;

inline void thread_main() {
    try {
        body();
        const Issued& left = issued();
        bool copies = !left.open_copies.empty();
        for (const auto& group : left.copy_groups) copies |= !group.empty();
        if (copies) fail("a thread ends with cp.async not waited for");
        if (!left.open_ops.empty() || !left.op_groups.empty()) fail("a thread ends with wgmma not waited for");
    } catch (const Failure& f) {
        gpu::failure = f.what;
    }
}

inline void run_block(unsigned threads) {
    block->issued.resize(threads);
    block->warps.resize((threads + 31) / 32);
    block->ops.resize((threads + 127) / 128);
    block->arena.assign(kArena, 0xff);
    block->writer.assign(kArena / 16, 0);
    block->in_flight.assign(kArena / 16, 0);
    std::vector<unsigned> ranks(threads), order(threads);
    std::iota(ranks.begin(), ranks.end(), 0);
    // Warps in random order, and one pass in four their lanes too.
    gpu::take_turns(threads, thread_main, [&]() -> const std::vector<unsigned>& {
        if (random() & 3)
            std::iota(ranks.begin(), ranks.end(), 0);
        else
            std::shuffle(ranks.begin(), ranks.end(), random);
        std::rotate_copy(ranks.begin(), ranks.begin() + random() % threads, ranks.end(), order.begin());
        return order;
    });
}

// Runs every block; returns what went wrong, or nothing.
template <class Kernel, class... Args>
std::string launch(dim3 grid, dim3 threads, u32 shared_limit, Kernel kernel, Args... args) {
    std::vector<dim3> blocks;
    for (u64 i = 0; i < grid.count(); i++) blocks.push_back(grid.place(i));
    std::shuffle(blocks.begin(), blocks.end(), random);
    body = [=] { kernel(args...); };
    const unsigned count = gpu::set_shape(grid, threads);
    for (const dim3& index : blocks) {
        blockIdx = index;
        Block b;
        b.shared_limit = shared_limit;
        block = &b;
        run_block(count);
        block = nullptr;
        if (!gpu::failure.empty()) break;
    }
    return gpu::failure;
}
} // namespace emu

#define KILN_SHARED(BASE, BYTES) const u32 BASE = emu::shared(BYTES);

inline void st_shared(u32 at, U32x4 v) {
    emu::maybe_yield();
    if (emu::sabotage == emu::Sabotage::Swizzle) at ^= (at >> 7 & 7) << 4;
    u8* p = emu::shared_at(at, 16, "st.shared");
    memcpy(p, &v, 16);
    emu::generic_write(at);
}
inline void st_shared_u32(u32 at, u32 v) {
    emu::maybe_yield();
    memcpy(emu::shared_at(at, 4, "st.shared"), &v, 4);
    emu::generic_write(at);
}
inline u32 ld_shared_u32(u32 at) {
    u32 v;
    memcpy(&v, emu::shared_at(at, 4, "ld.shared"), 4);
    return v;
}
inline U32x4 ld_shared(u32 at) {
    U32x4 v;
    memcpy(&v, emu::shared_at(at, 16, "ld.shared"), 16);
    return v;
}
inline U32x4 ld_global_nc(const void* p) { return emu::load<U32x4>(p, "ld.global.v4"); }
inline U32x4 ld_global(const void* p) { return emu::load<U32x4>(p, "ld.global.v4"); }
inline float ld_global_nc_f32(const float* p) { return emu::load<float>(p, "ld.global.f32"); }
inline float ld_global_f32(const float* p) { return emu::load<float>(p, "ld.global.f32"); }
inline u32 ld_global_nc_u32(const u32* p) { return emu::load<u32>(p, "ld.global.b32"); }
inline u32 ld_global_nc_u8(const u8* p) { return emu::load<u8>(p, "ld.global.u8"); }
inline u32 ld_global_u32(const u32* p) { return emu::load<u32>(p, "ld.global.b32"); }
inline u32 ld_global_u16(const u16* p) { return emu::load<u16>(p, "ld.global.u16"); }
inline void st_global(void* p, U32x4 v) { emu::store(p, v, "st.global.v4"); }
inline void st_global_u32(u32* p, u32 v) { emu::store(p, v, "st.global.b32"); }
inline void st_global_u16(u16* p, u32 v) { emu::store(p, (u16)v, "st.global.b16"); }
inline void st_global_f32(float* p, float v) { emu::store(p, v, "st.global.f32"); }

inline u32 pack_bf16(float lo, float hi) { return (u32)emu::to_bf16(lo) | (u32)emu::to_bf16(hi) << 16; }
inline u32 anew(u32 v) { return v; }
inline float as_float(u32 v) { return std::bit_cast<float>(v); }
inline u32 as_u32(float v) { return std::bit_cast<u32>(v); }
inline float mul_rn(float a, float b) { return a * b; }
inline float add_rn(float a, float b) { return a + b; }
inline float exp2_approx(float x) { return exp2f(x); }
inline float log2_approx(float x) { return log2f(x); }
inline u32 mad_hi(u32 a, u32 b, u32 c) { return (u32)((u64)a * b >> 32) + c; }
inline u32 prmt(u32 a, u32 b, u32 selector) {
    const u64 bytes = (u64)b << 32 | a;
    u32 out = 0;
    for (int i = 0; i < 4; i++) {
        const u32 s = selector >> (4 * i) & 15;
        u32 byte = (u32)(bytes >> (8 * (s & 7)) & 255);
        if (s & 8) byte = byte & 128 ? 255 : 0;
        out |= byte << (8 * i);
    }
    return out;
}

inline void named_sync(u32 id, u32 threads) {
    if (emu::sabotage == emu::Sabotage::BlockSync) return;
    if (threads % 32) emu::fail("a named barrier of a part of a warp");
    emu::block->named[id].meet("a block barrier", threads);
}
inline void block_sync() { named_sync(0, (u32)blockDim.count()); }
inline void warp_sync() {
    emu::warp_collective(1, nullptr, [](void**) {});
}
inline void fence_proxy_async() {
    if (emu::sabotage == emu::Sabotage::ProxyFence) return;
    for (u32 chunk : emu::issued().unfenced)
        if (emu::block->writer[chunk] == (int)emu::self->rank + 1) emu::block->writer[chunk] = 0;
    emu::issued().unfenced.clear();
}
inline void mbar_init(u32 at, u32 count) {
    emu::shared_at(at, 8, "mbarrier");
    emu::block->barriers[at] = {count, count, 0};
}
inline emu::Barrier& mbar(u32 at) {
    auto it = emu::block->barriers.find(at);
    if (it == emu::block->barriers.end()) emu::fail("an mbarrier used before it was initialised");
    return it->second;
}
inline void mbar_arrive(u32 at) {
    emu::maybe_yield();
    emu::Barrier& b = mbar(at);
    if (--b.pending == 0) {
        b.phase++;
        b.pending = b.count;
    }
}
// The phase of this parity has completed: the current phase has the other parity.
inline void mbar_wait(u32 at, u32 parity) {
    emu::Barrier& b = mbar(at);
    const bool empty_side = emu::self->rank >= 256;
    if (emu::sabotage == emu::Sabotage::FullWait && !empty_side) return;
    if (emu::sabotage == emu::Sabotage::EmptyWait && empty_side) return;
    gpu::wait_while("an mbarrier", b.phase, 1, parity);
}

inline void cp_async(u32 to, const void* from, u32 bytes) {
    emu::maybe_yield();
    if (bytes > 16) emu::fail("cp.async of more than 16 bytes");
    if ((uintptr_t)from % 16) emu::fail("cp.async from a misaligned address");
    u8* p = emu::shared_at(to, 16, "cp.async");
    if (bytes) emu::check_global(from, 1, false, "cp.async");
    if (bytes) emu::check_global((const u8*)from + bytes - 1, 1, false, "cp.async");
    memset(p, 0xff, 16);
    emu::block->in_flight[to / 16]++;
    emu::issued().open_copies.push_back({to, from, bytes});
}
inline void cp_async(u32 to, const void* from) { cp_async(to, from, 16); }
inline void cp_async_commit() {
    emu::issued().copy_groups.push_back(std::move(emu::issued().open_copies));
    emu::issued().open_copies.clear();
}
template <int N>
void cp_async_wait() {
    if (emu::sabotage == emu::Sabotage::CpAsyncWait) return;
    while (emu::issued().copy_groups.size() > N) {
        for (const emu::Copy& c : emu::issued().copy_groups.front()) {
            u8* p = emu::block->arena.data() + c.to;
            memset(p, 0, 16);
            memcpy(p, c.from, c.bytes);
            emu::block->in_flight[c.to / 16]--;
            emu::generic_write(c.to);
        }
        emu::issued().copy_groups.pop_front();
    }
}

template <class T>
T shfl_xor_any(T v, int mask) {
    struct Args {
        T in, out;
        int mask;
    } mine{v, v, mask};
    emu::warp_collective(2, &mine, [](void** all) {
        for (int i = 0; i < 32; i++) {
            Args* a = (Args*)all[i];
            a->out = ((Args*)all[i ^ a->mask])->in;
        }
    });
    return mine.out;
}
inline float shfl_xor(float v, int mask) { return shfl_xor_any(v, mask); }
inline u32 shfl_xor(u32 v, int mask) { return shfl_xor_any(v, mask); }

struct LdmatrixArgs {
    u32 at;
    u32 out[4];
};
template <bool TRANS>
void ldmatrix_any(u32 (&r)[4], u32 at) {
    LdmatrixArgs mine{at, {}};
    emu::warp_collective(3, &mine, [](void** all) {
        for (int m = 0; m < 4; m++) {
            u16 matrix[8][8];
            for (int row = 0; row < 8; row++) {
                const u32 from = ((LdmatrixArgs*)all[m * 8 + row])->at;
                if (emu::block->in_flight[from / 16]) emu::fail("ldmatrix reads what a cp.async may still be writing");
                memcpy(matrix[row], emu::shared_at(from, 16, "ldmatrix"), 16);
            }
            for (int lane = 0; lane < 32; lane++) {
                const int a = lane / 4, b = lane % 4 * 2;
                const u32 lo = TRANS ? matrix[b][a] : matrix[a][b], hi = TRANS ? matrix[b + 1][a] : matrix[a][b + 1];
                ((LdmatrixArgs*)all[lane])->out[m] = lo | hi << 16;
            }
        }
    });
    memcpy(r, mine.out, 16);
}
inline void ldmatrix(u32 (&r)[4], u32 at) { ldmatrix_any<false>(r, at); }
inline void ldmatrix_trans(u32 (&r)[4], u32 at) { ldmatrix_any<true>(r, at); }

struct MmaArgs {
    float* d;
    const u32* a;
    u32 b[2];
};
inline void mma_16816(float* d, const u32 (&a)[4], u32 b0, u32 b1) {
    MmaArgs mine{d, a, {b0, b1}};
    emu::warp_collective(4, &mine, [](void** all) {
        float A[16][16], B[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const MmaArgs* x = (MmaArgs*)all[lane];
            const int g = lane / 4, t = lane % 4 * 2;
            for (int half = 0; half < 2; half++) {
                for (int r = 0; r < 4; r++)
                    A[g + (r & 1) * 8][t + (r >> 1) * 8 + half] = emu::from_bf16((u16)(x->a[r] >> (16 * half)));
                for (int r = 0; r < 2; r++) B[t + r * 8 + half][g] = emu::from_bf16((u16)(x->b[r] >> (16 * half)));
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            float* d = ((MmaArgs*)all[lane])->d;
            for (int i = 0; i < 4; i++) {
                const int row = lane / 4 + (i >> 1) * 8, col = lane % 4 * 2 + (i & 1);
                float sum = 0;
                for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][col];
                d[i] += sum;
            }
        }
    });
}

inline void wgmma_fence() {
    if (emu::sabotage != emu::Sabotage::WgmmaFence) emu::issued().wgmma_fenced = true;
}
inline void wgmma_commit() {
    emu::issued().op_groups.push_back(std::move(emu::issued().open_ops));
    emu::issued().open_ops.clear();
}
template <int N>
void wgmma_wait() {
    emu::maybe_yield();
    if (emu::sabotage == emu::Sabotage::WgmmaWait) return;
    while (emu::issued().op_groups.size() > N) {
        for (const auto& pending : emu::issued().op_groups.front()) emu::wgmma_execute(pending);
        emu::issued().op_groups.pop_front();
    }
    emu::issued().wgmma_fenced = false;
}
template <int R>
void wgmma_settled(float (&)[R]) {}
template <int N, int A_MN, int B_MN>
struct Wgmma {
    static void run(float (&d)[N / 2], u64 a, u64 b, int keep) { emu::wgmma_issue(d, a, b, N, A_MN, B_MN, keep); }
};
