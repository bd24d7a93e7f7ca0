// What the three matrix-product kernels share. One block is three warpgroups: two consume, each
// MT x 64 rows of the block's tile, and the third produces: it fills the stages of a ring in shared
// memory with cp.async (bf16 operands) or by dequantising (nf4.cuh). The consumers multiply with
// Hopper's wgmma, or with KILN_WGMMA=0 with the mma of every card since Ampere (sm_80).
//
//   a tile BM x BK of A, and BN x BK of B, per stage; D[m][n] += sum over k of A[m][k] B[n][k]
//   full[s]   one arrival a producer warp, once what it wrote to stage s has arrived and is visible
//             to the consumers
//   empty[s]  one arrival a consumer warp, once it has read stage s
//
// An operand lies in memory with the contraction contiguous ("K-major", rows of BK elements) or with
// its own index contiguous ("MN-major", kept in shared memory as columns of 64 own indices, each BK
// rows of 128 bytes). Shared memory is swizzled over the width of a row: 16-byte chunk c of row r goes
// to c ^ (r mod 8) where a row has 128 bytes, to c ^ (r/2 mod 4) where it has 64.
#ifndef KILN_GEMM
#define KILN_GEMM
#include "primitives.cuh"

#define KILN_THREADS 384
#ifndef KILN_WGMMA
#define KILN_WGMMA 1
#endif
// 1: every matrix starts at a multiple of 16 bytes and its pitch is a multiple of 8 elements, and so is
// the number of columns of the result. 0: anything goes, more slowly where it is not so.
#ifndef KILN_ALIGNED
#define KILN_ALIGNED 1
#endif
// The grid is walked in bands of this many row tiles, so that the blocks that run at one time share
// their operands in L2.
#define KILN_BAND 8

template <int BM_, int BN_, int BK_, int STAGES_, bool A_MN_, bool B_MN_>
struct Tile {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, STAGES = STAGES_;
    static constexpr bool A_MN = A_MN_, B_MN = B_MN_;
    static constexpr int MT = BM / 128;
    static constexpr u32 A_BYTES = BM * BK * 2, B_BYTES = BN * BK * 2, STAGE = A_BYTES + B_BYTES;
    static constexpr u32 BARRIERS = STAGES * STAGE, SHARED = BARRIERS + STAGES * 16;
    // A stage is announced LAG steps after its copies were issued. With wgmma the consumers free a stage
    // one step after they have read it, so a larger LAG would wait for itself.
    static constexpr int LAG = STAGES - 2;
    static_assert(BM % 128 == 0 && (BN == 64 || BN == 128) && (BK == 64 || BK == 32), "");
    static_assert(STAGES >= 2, "");
};

template <int BK>
KILN_FN u32 swizzled(u32 offset) {
    return offset ^ ((offset >> 3) & (BK == 64 ? 0x70u : 0x30u));
}

struct Walk {
    u32 tiles_m, tiles_n;
    KILN_FN u32 count() const { return tiles_m * tiles_n; }
    KILN_FN void at(u32 id, u32& m, u32& n) const {
        const u32 band = id / (KILN_BAND * tiles_n), first = band * KILN_BAND, in = id - first * tiles_n;
        const u32 height = tiles_m - first < KILN_BAND ? tiles_m - first : KILN_BAND;
        m = first + in % height;
        n = in / height;
    }
};

// Position in the ring of stages: one number, since registers are scarce.
template <int STAGES>
struct Ring {
    u32 at = 0;
    KILN_FN u32 stage() const { return at % STAGES; }
    KILN_FN u32 phase() const { return at / STAGES & 1; }
    KILN_FN void next() { at++; }
};

template <class T>
KILN_FN u32 full_barrier(u32 base, u32 stage) {
    return base + T::BARRIERS + stage * 16;
}
template <class T>
KILN_FN u32 empty_barrier(u32 base, u32 stage) {
    return base + T::BARRIERS + stage * 16 + 8;
}

template <class T>
KILN_FN void barriers_init(u32 base) {
    if (threadIdx.x == 0) {
        for (int s = 0; s < T::STAGES; s++) {
            mbar_init(full_barrier<T>(base, s), 4);
            mbar_init(empty_barrier<T>(base, s), 8);
        }
    }
    block_sync();
}

// ---- the producer's side ------------------------------------------------------------------------

// A bf16 operand in global memory: `rows` own indices, `depth` of the contraction, `pitch` elements
// from one contiguous run to the next.
struct Operand {
    const u16* data;
    u64 pitch;
    u32 rows, depth;
    bool vector; // runs start at multiples of 16 bytes

    KILN_FN Operand(const u16* data_, u64 pitch_, u32 rows_, u32 depth_)
        : data(data_), pitch(pitch_), rows(rows_), depth(depth_),
          vector(((pitch_ | (u64)data_ >> 1) & 7) == 0) {}

    // Eight elements at `p` of which the first `valid` exist.
    KILN_FN void chunk(u32 to, const u16* p, int valid) const {
        valid = valid < 0 ? 0 : valid > 8 ? 8 : valid;
#if !KILN_ALIGNED
        if (!vector) {
            u32 e[8];
#pragma unroll
            for (int i = 0; i < 8; i++) e[i] = i < valid ? ld_global_u16(p + i) : 0;
            st_shared(to, U32x4{e[0] | e[1] << 16, e[2] | e[3] << 16, e[4] | e[5] << 16, e[6] | e[7] << 16});
            return;
        }
#endif
        cp_async(to, valid ? p : data, (u32)valid * 2);
    }

    // The tile of ROWS own indices from `row` and BK of the contraction from `k`, by 128 threads. A tile
    // that lies inside needs no tests and no zeros: the producer's integer pipe is what it is short of.
    template <int ROWS, int BK, bool MN>
    KILN_FN void load(u32 to, u32 row, u32 k, u32 t) const {
        const bool inside = (KILN_ALIGNED || vector) && row + ROWS <= rows && k + BK <= depth;
        if constexpr (MN) {
            const u32 c = t % 8, r = t / 8;
            to += swizzled<64>(r * 128 + c * 16);
            const u16* p = data + (u64)(k + r) * pitch + row + c * 8;
            if (inside) {
#pragma unroll
                for (int i = 0; i < BK / 16; i++) {
#pragma unroll
                    for (int part = 0; part < ROWS / 64; part++)
                        cp_async(to + part * (BK * 128) + i * 2048, p + part * 64);
                    p += 16 * pitch;
                }
                return;
            }
#pragma unroll 1
            for (int i = 0; i < BK / 16; i++) {
#pragma unroll
                for (int part = 0; part < ROWS / 64; part++) {
                    const int valid = k + r + i * 16 < depth ? (int)rows - (int)(row + part * 64 + c * 8) : 0;
                    chunk(to + part * (BK * 128) + i * 2048, p + part * 64, valid);
                }
                p += 16 * pitch;
            }
        } else {
            constexpr u32 CHUNKS = BK / 8, STEP = 128 / CHUNKS;
            const u32 c = t % CHUNKS, r = t / CHUNKS;
            to += swizzled<BK>(r * (BK * 2) + c * 16);
            const u16* p = data + (u64)(row + r) * pitch + k + c * 8;
            if (inside) {
#pragma unroll
                for (int i = 0; i < ROWS / (int)STEP; i++) {
                    cp_async(to + i * 2048, p);
                    p += STEP * pitch;
                }
                return;
            }
            const int valid = (int)depth - (int)(k + c * 8);
#pragma unroll 1
            for (int i = 0; i < ROWS / (int)STEP; i++) {
                chunk(to + i * 2048, p, row + r + i * STEP < rows ? valid : 0);
                p += STEP * pitch;
            }
        }
    }
};

// Closes a step's copies and announces the stage filled LAG steps before. After the last step the
// producer goes on committing nothing until every stage has been announced.
template <class T>
struct Announcer {
    u32 filled = 0, committed = 0, stage = 0;
    KILN_FN bool due() const { return committed < filled + T::LAG; }
    KILN_FN void commit(u32 base, u32 lane) {
        cp_async_commit();
        if (++committed <= T::LAG) return;
        cp_async_wait<T::LAG>();
#if KILN_WGMMA
        fence_proxy_async();
#endif
        warp_sync();
        if (lane == 0) mbar_arrive(full_barrier<T>(base, stage));
        if (++stage == T::STAGES) stage = 0;
    }
};

// ---- the consumers' side ------------------------------------------------------------------------

// What the consumers hold of a tile: for each 64 rows and each 8 columns four sums, of rows lane/4 and 8
// below in the warp's 16, two neighbouring columns each. wgmma and mma agree on that.
template <class T>
struct Sums {
    float of[T::MT][T::BN / 2];
};

#if KILN_WGMMA
// The next stage, once it has been filled: COUNT times 16 of its depth into `acc`.
template <class T, int COUNT>
KILN_FN void multiply(u32 base, const Ring<T::STAGES>& ring, u32 group, u32, Sums<T>& acc) {
    constexpr u32 MODE = T::BK == 64 ? 1 : 2, ROW = T::BK * 2, COLUMN = T::BK * 128;
    const u32 a = base + ring.stage() * T::STAGE, b = a + T::A_BYTES;
    mbar_wait(full_barrier<T>(base, ring.stage()), ring.phase());
    wgmma_fence();
    const u64 db = T::B_MN ? wgmma_operand(b, COLUMN, 1024, 1) : wgmma_operand(b, 16, 8 * ROW, MODE);
    const u32 first = group * T::MT;
    const u64 da = T::A_MN ? wgmma_operand(a + first * COLUMN, COLUMN, 1024, 1)
                           : wgmma_operand(a + first * 64 * ROW, 16, 8 * ROW, MODE);
#pragma unroll
    for (int kk = 0; kk < COUNT; kk++) {
#pragma unroll
        for (int mt = 0; mt < T::MT; mt++) {
            const u64 ia = da + mt * ((T::A_MN ? COLUMN : 64 * ROW) / 16) + kk * (T::A_MN ? 128 : 2);
            Wgmma<T::BN, T::A_MN, T::B_MN>::run(acc.of[mt], ia, db + kk * (T::B_MN ? 128 : 2), 1);
        }
    }
    wgmma_commit();
}

// One of a tile's steps: the first COUNT times 16 of its depth. `last` is the stage read before.
template <class T, int COUNT>
KILN_FN void consume_step(u32 base, Ring<T::STAGES>& ring, u32 group, u32 t, bool first, u32& last, Sums<T>& acc) {
    multiply<T, COUNT>(base, ring, group, t, acc);
    wgmma_wait<1>();
    if (!first && t % 32 == 0) mbar_arrive(empty_barrier<T>(base, last));
    last = ring.stage();
    ring.next();
}

template <class T>
KILN_FN void consume_rest(u32 base, u32 t, bool first, u32 last, Sums<T>& acc) {
    wgmma_wait<0>();
#pragma unroll
    for (int mt = 0; mt < T::MT; mt++) wgmma_settled(acc.of[mt]);
    if (!first && t % 32 == 0) mbar_arrive(empty_barrier<T>(base, last));
}
#else
// Where a lane's row for ldmatrix lies: K-major a 16-byte chunk of a row of the operand, MN-major of a
// row of the contraction (ldmatrix transposes then). `at` is the place in the tile's first 16 x 16, of
// which the others are a whole number of rows of eight away, and an even number of chunks: an exclusive or.
template <int BK, bool MN>
struct Fragments {
    u32 at;
    KILN_FN Fragments(u32 row, u32 chunk) : at(swizzled<MN ? 64 : BK>(row * (MN ? 128 : BK * 2) + chunk * 16)) {}
    // A left one: four 8 x 8, down its rows first.
    static KILN_FN Fragments left(u32 lane) {
        return MN ? Fragments(lane % 8 + lane / 16 * 8, lane / 8 % 2) : Fragments(lane % 16, lane / 16);
    }
    // Two right ones of 8 columns each: along the contraction first.
    static KILN_FN Fragments right(u32 lane) {
        return MN ? Fragments(lane % 16, lane / 16) : Fragments(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    }
    // Of 16 own indices from `own`, the kk-th 16 of the contraction.
    KILN_FN void load(u32 (&r)[4], u32 tile, u32 own, int kk) const {
        if constexpr (MN)
            ldmatrix_trans(r, tile + own / 64 * (BK * 128) + kk * 2048 + (at ^ own % 64 * 2));
        else
            ldmatrix(r, tile + own * (BK * 2) + (at ^ kk * 32));
    }
};

// The next stage, once it has been filled: COUNT times 16 of its depth into `acc`.
template <class T, int COUNT>
KILN_FN void multiply(u32 base, const Ring<T::STAGES>& ring, u32 group, u32 t, Sums<T>& acc) {
    const u32 a = base + ring.stage() * T::STAGE, b = a + T::A_BYTES;
    const auto lefts = Fragments<T::BK, T::A_MN>::left(t % 32);
    const auto rights = Fragments<T::BK, T::B_MN>::right(t % 32);
    mbar_wait(full_barrier<T>(base, ring.stage()), ring.phase());
    // Each lane waited by itself; ldmatrix takes them all at once.
    warp_sync();
#pragma unroll
    for (int kk = 0; kk < COUNT; kk++) {
        u32 left[T::MT][4];
#pragma unroll
        for (int mt = 0; mt < T::MT; mt++)
            lefts.load(left[mt], anew(a), (group * T::MT + mt) * 64 + t / 32 * 16, kk);
#pragma unroll
        for (int j = 0; j < T::BN / 8; j += 2) {
            u32 right[4];
            rights.load(right, b, j * 8, kk);
#pragma unroll
            for (int mt = 0; mt < T::MT; mt++) {
                mma_16816(acc.of[mt] + j * 4, left[mt], right[0], right[1]);
                mma_16816(acc.of[mt] + j * 4 + 4, left[mt], right[2], right[3]);
            }
        }
    }
}

// One of a tile's steps: the first COUNT times 16 of its depth.
template <class T, int COUNT>
KILN_FN void consume_step(u32 base, Ring<T::STAGES>& ring, u32 group, u32 t, bool, u32&, Sums<T>& acc) {
    multiply<T, COUNT>(base, ring, group, t, acc);
    warp_sync();
    if (t % 32 == 0) mbar_arrive(empty_barrier<T>(base, ring.stage()));
    ring.next();
}

template <class T>
KILN_FN void consume_rest(u32, u32, bool, u32, Sums<T>&) {}
#endif

// Steps that a product of low rank takes, whose depth is LOW times 16.
template <class T, int LOW>
KILN_FN constexpr int low_steps() {
    return (LOW * 16 + T::BK - 1) / T::BK;
}

// The block's `number`-th tile into `acc`: `steps` of the contraction, and then LOW times 16 of its depth
// in steps of their own. Where the ring stands then is computed, not counted: registers are scarce.
template <class T, int LOW = 0>
KILN_FN void consume(u32 base, Ring<T::STAGES>& ring, u32 number, u32 steps, u32 group, u32 t, Sums<T>& acc) {
#pragma unroll
    for (int mt = 0; mt < T::MT; mt++)
#pragma unroll
        for (int i = 0; i < T::BN / 2; i++) acc.of[mt][i] = 0;
#if KILN_WGMMA
    // The zeros must not move behind the first product's fence.
#pragma unroll
    for (int mt = 0; mt < T::MT; mt++) wgmma_settled(acc.of[mt]);
#endif
    // Beyond the rank there are zeros, which mma may multiply too: code of its own for the last step would
    // need more registers than there are. wgmma has them, and longer steps.
    constexpr int STEP = T::BK / 16, FULL = KILN_WGMMA ? LOW / STEP : low_steps<T, LOW>();
    constexpr int REST = KILN_WGMMA ? LOW % STEP : 0;
    const u32 begin = number * (steps + low_steps<T, LOW>());
    u32 last = 0;
#pragma unroll 1
    while (ring.at != begin + steps + FULL) consume_step<T, STEP>(base, ring, group, t, ring.at == begin, last, acc);
    if constexpr (REST > 0) consume_step<T, REST>(base, ring, group, t, ring.at == begin, last, acc);
    consume_rest<T>(base, t, ring.at == begin, last, acc);
}

// ---- epilogues ----------------------------------------------------------------------------------

struct Output {
    u32 rows, cols;
    u64 pitch;
    float scale;
    bool accumulate;
    bool vector; // rows start at multiples of 16 bytes
};

KILN_FN float bf16_at(const u16* p) { return as_float(ld_global_u16(p) << 16); }

// 64 rows of accumulators to bf16. Of each 8 columns a lane holds two neighbours, of rows lane/4 and 8
// below; four lanes trade their pairs of four such groups, so that each holds 16 bytes of one row.
template <int BN>
KILN_FN void store_bf16(const float (&acc)[BN / 2], u16* data, const Output& out, u32 row0, u32 col0, u32 warp, u32 lane) {
    const u32 t = lane % 4;
#pragma unroll
    for (int jj = 0; jj < BN / 32; jj++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 row = row0 + warp * 16 + lane / 4 + half * 8;
            u16* line = data + (u64)row * out.pitch;
            float lo[4], hi[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                lo[i] = acc[(jj * 4 + i) * 4 + half * 2] * out.scale;
                hi[i] = acc[(jj * 4 + i) * 4 + half * 2 + 1] * out.scale;
            }
            if (out.accumulate && row < out.rows) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const u32 col = col0 + jj * 32 + i * 8 + t * 2;
                    if (KILN_ALIGNED ? col < out.cols : out.vector && col + 1 < out.cols) {
                        const u32 old = ld_global_u32((const u32*)(line + col));
                        lo[i] += bf16_low(old);
                        hi[i] += bf16_high(old);
                    } else if (!KILN_ALIGNED) {
                        if (col < out.cols) lo[i] += bf16_at(line + col);
                        if (col + 1 < out.cols) hi[i] += bf16_at(line + col + 1);
                    }
                }
            }
            u32 p[4];
#pragma unroll
            for (int i = 0; i < 4; i++) p[i] = pack_bf16(lo[i], hi[i]);
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                const u32 got = shfl_xor(t & 1 ? p[i] : p[i + 1], 1);
                p[i] = t & 1 ? got : p[i];
                p[i + 1] = t & 1 ? p[i + 1] : got;
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 got = shfl_xor(t & 2 ? p[i] : p[i + 2], 2);
                p[i] = t & 2 ? got : p[i];
                p[i + 2] = t & 2 ? p[i + 2] : got;
            }
            const u32 col = col0 + jj * 32 + t * 8;
            if (row >= out.rows) continue;
            if (KILN_ALIGNED ? col < out.cols : out.vector && col + 8 <= out.cols) {
                st_global(line + col, U32x4{p[0], p[1], p[2], p[3]});
            } else if (!KILN_ALIGNED) {
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (col + i < out.cols) st_global_u16(line + col + i, (p[i / 2] >> (i % 2 * 16)) & 0xffffu);
            }
        }
    }
}

// The same to f32: pairs of lanes trade, so that each holds four columns of one row.
template <int BN>
KILN_FN void store_f32(const float (&acc)[BN / 2], float* data, const Output& out, u32 row0, u32 col0, u32 warp, u32 lane) {
    const u32 t = lane % 4, odd = lane & 1;
    const u32 row = row0 + warp * 16 + lane / 4 + odd * 8;
    float* line = data + (u64)row * out.pitch;
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        const float got0 = shfl_xor(odd ? acc[j * 4] : acc[j * 4 + 2], 1);
        const float got1 = shfl_xor(odd ? acc[j * 4 + 1] : acc[j * 4 + 3], 1);
        float v[4] = {odd ? got0 : acc[j * 4], odd ? got1 : acc[j * 4 + 1], odd ? acc[j * 4 + 2] : got0,
                      odd ? acc[j * 4 + 3] : got1};
        const u32 col = col0 + j * 8 + t / 2 * 4;
        if (row >= out.rows) continue;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] *= out.scale;
            if (out.accumulate && col + i < out.cols) v[i] += ld_global_f32(line + col + i);
        }
        if (KILN_ALIGNED ? col < out.cols : out.vector && col + 4 <= out.cols) {
            st_global(line + col, U32x4{as_u32(v[0]), as_u32(v[1]), as_u32(v[2]), as_u32(v[3])});
        } else if (!KILN_ALIGNED) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (col + i < out.cols) st_global_f32(line + col + i, v[i]);
        }
    }
}
#endif
