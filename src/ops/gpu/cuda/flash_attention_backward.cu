// The gradients of flash_attention, in two kernels that add nothing atomically: dq by tiles of rows,
// dk and dv by tiles of keys (over all query heads of the group). delta[b][h][i] is the sum over d of
// do[i][d] o[i][d], made beforehand. With p = exp(scale q k^T - lse): dv = p^T do,
// ds = p (do v^T - delta) scale, dq = ds k, dk = ds^T q.
//
// Launch: entry flash_attention_dq with grid (ceil(seq / 64), q_heads, batch), entry flash_attention_dkv
// with grid (ceil(seq / 64), kv_heads, batch); block (128, 1, 1); in any order.
// Arguments: q, k, v bf16, start u32[batch * seq], do bf16, lse and delta f32[batch * q_heads * seq], then
// dq bf16, or dk and dv bf16; then by value the fifteen 64-bit words of FlashParams. Shared memory:
// static, 768 * KILN_D bytes (dkv: 1,536 more); with KILN_DYNAMIC_SHARED=1 dynamic, ask for 1,024 more.
// Needs: as flash_attention. Every element of dq, dk and dv is written.
//
// variant: flash_attention_dq_128 flash_attention_dq
// variant: flash_attention_dq_128_dynamic flash_attention_dq -DKILN_DYNAMIC_SHARED=1
// variant: flash_attention_dq_64 flash_attention_dq -DKILN_D=64
// variant: flash_attention_dkv_128 flash_attention_dkv
// variant: flash_attention_dkv_128_dynamic flash_attention_dkv -DKILN_DYNAMIC_SHARED=1
// variant: flash_attention_dkv_64 flash_attention_dkv -DKILN_D=64
// elsewhere: sm_80 sm_86 sm_89 sm_100 sm_120
#include "flash.cuh"

extern "C" __global__ void __launch_bounds__(KILN_FLASH_THREADS, 2)
flash_attention_dq(const u16* __restrict__ q, const u16* __restrict__ k, const u16* __restrict__ v,
                   const u32* __restrict__ start, const u16* __restrict__ d_o, const float* __restrict__ lse,
                   const float* __restrict__ delta, u16* dq, const __grid_constant__ FlashParams p) {
    KILN_SHARED(base, KILN_FLASH_BYTES * 6)
    const u32 seq = (u32)p.seq, window = (u32)p.window, t = threadIdx.x, lane = t % 32, warp = t / 32;
    const u32 head = blockIdx.y, batch = blockIdx.z;
    const u32 row0 = (gridDim.x - 1 - blockIdx.x) * KILN_FLASH_TILE;
    const u64 kv = batch * p.k_batch + head / (u32)(p.q_heads / p.kv_heads) * p.k_head;
    k += kv;
    v += kv;
    start += (u64)batch * seq;

    flash_load(base, q + batch * p.q_batch + head * p.q_head, p.q_row, row0, seq, t);
    flash_load(base + KILN_FLASH_BYTES, d_o + batch * p.o_batch + head * p.o_head, p.o_row, row0, seq, t);
    const u32 end = min_u32(row0 + KILN_FLASH_TILE, seq);
    u32 key0 = flash_first(start, row0, window) / KILN_FLASH_TILE * KILN_FLASH_TILE, stage = 0;
    auto load = [&](u32 key, u32 to) {
        const u32 at = base + KILN_FLASH_BYTES * (2 + 2 * to);
        flash_load(at, k, p.k_row, key, seq, t);
        flash_load(at + KILN_FLASH_BYTES, v, p.k_row, key, seq, t);
        cp_async_commit();
    };
    load(key0, 0);

    const u32 row = row0 + warp * 16 + lane / 4;
    u32 first[2];
    float log_sum[2], minus[2];
    const float scale = as_float((u32)p.scale_bits);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 r = row + half * 8;
        const u64 at = ((u64)batch * p.q_heads + head) * seq + r;
        first[half] = r < seq ? flash_first(start, r, window) : 0xffffffffu;
        log_sum[half] = r < seq ? ld_global_nc_f32(lse + at) * KILN_LOG2E : 0;
        minus[half] = r < seq ? ld_global_nc_f32(delta + at) : 0;
    }
    float out[KILN_D / 8][4];
#pragma unroll
    for (int n = 0; n < KILN_D / 8; n++) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0;

#pragma unroll 1
    for (; key0 < end; key0 += KILN_FLASH_TILE, stage ^= 1) {
        if (key0 + KILN_FLASH_TILE < end) {
            load(key0 + KILN_FLASH_TILE, stage ^ 1);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        block_sync();
        const u32 keys = base + KILN_FLASH_BYTES * (2 + 2 * stage), values = keys + KILN_FLASH_BYTES;
        float s[8][4], d[8][4];
        flash_scores(s, base, warp * 16, keys, 0, lane);
        flash_scores(d, base + KILN_FLASH_BYTES, warp * 16, values, 0, lane);
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int half = i / 2;
                const u32 key = key0 + j * 8 + lane % 4 * 2 + (i & 1);
                const bool seen = key <= row + half * 8 && key >= first[half];
                const float weight = seen ? exp2_approx(s[j][i] * (scale * KILN_LOG2E) - log_sum[half]) : 0;
                d[j][i] = weight * (d[j][i] - minus[half]) * scale;
            }
        flash_apply(out, d, keys, 0, lane);
        block_sync();
    }
    flash_store(dq + batch * p.q_batch + head * p.q_head, p.q_row, row0 + warp * 16, seq, out, 1, 1, lane);
}

extern "C" __global__ void __launch_bounds__(KILN_FLASH_THREADS, 2)
flash_attention_dkv(const u16* __restrict__ q, const u16* __restrict__ k, const u16* __restrict__ v,
                    const u32* __restrict__ start, const u16* __restrict__ d_o, const float* __restrict__ lse,
                    const float* __restrict__ delta, u16* dk, u16* dv, const __grid_constant__ FlashParams p) {
    // Keys, values; two stages of rows and their gradients; two stages of what a row needs besides:
    // its first key, log-sum-exp and delta.
    constexpr u32 ROWS = KILN_FLASH_BYTES * 2, BESIDES = KILN_FLASH_BYTES * 6, BESIDES_BYTES = KILN_FLASH_TILE * 12;
    KILN_SHARED(base, BESIDES + 2 * BESIDES_BYTES)
    const u32 seq = (u32)p.seq, window = (u32)p.window, t = threadIdx.x, lane = t % 32, warp = t / 32;
    const u32 batch = blockIdx.z, group = (u32)(p.q_heads / p.kv_heads);
    const u32 key0 = blockIdx.x * KILN_FLASH_TILE, key = key0 + warp * 16 + lane / 4;
    const u32 last = min_u32(key0 + KILN_FLASH_TILE, seq) - 1;
    const u64 kv = batch * p.k_batch + blockIdx.y * p.k_head;
    start += (u64)batch * seq;
    const float scale = as_float((u32)p.scale_bits);

    flash_load(base, k + kv, p.k_row, key0, seq, t);
    flash_load(base + KILN_FLASH_BYTES, v + kv, p.k_row, key0, seq, t);
    auto load = [&](u32 head, u32 row0, u32 to) {
        const u32 at = base + ROWS + KILN_FLASH_BYTES * 2 * to;
        flash_load(at, q + batch * p.q_batch + head * p.q_head, p.q_row, row0, seq, t);
        flash_load(at + KILN_FLASH_BYTES, d_o + batch * p.o_batch + head * p.o_head, p.o_row, row0, seq, t);
        if (t < KILN_FLASH_TILE) {
            const u32 row = row0 + t, to_besides = base + BESIDES + BESIDES_BYTES * to + t * 12;
            const u64 from = ((u64)batch * p.q_heads + head) * seq + row;
            st_shared_u32(to_besides, row < seq ? flash_first(start, row, window) : 0xffffffffu);
            st_shared_u32(to_besides + 4, row < seq ? as_u32(ld_global_nc_f32(lse + from) * KILN_LOG2E) : 0);
            st_shared_u32(to_besides + 8, row < seq ? as_u32(ld_global_nc_f32(delta + from)) : 0);
        }
        cp_async_commit();
    };
    // Tiles of rows from the diagonal down, until a tile begins past the reach of the last key. What a row
    // reaches back to never falls from row to row, so the end can be bisected.
    u32 tiles = 1, end = (seq - key0 + KILN_FLASH_TILE - 1) / KILN_FLASH_TILE;
    while (tiles < end) {
        const u32 middle = (tiles + end) / 2;
        if (flash_first(start, key0 + middle * KILN_FLASH_TILE, window) <= last)
            tiles = middle + 1;
        else
            end = middle;
    }
    const u32 steps = tiles * group;

    float out_k[KILN_D / 8][4], out_v[KILN_D / 8][4];
#pragma unroll
    for (int n = 0; n < KILN_D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) out_k[n][i] = out_v[n][i] = 0;
    u32 head = blockIdx.y * group, row0 = key0, tile = 0, stage = 0;
    load(head, row0, 0);
#pragma unroll 1
    for (u32 step = 0; step < steps; step++, stage ^= 1) {
        u32 next_head = head, next_row0 = row0 + KILN_FLASH_TILE;
        if (++tile == tiles) {
            tile = 0;
            next_head++;
            next_row0 = key0;
        }
        if (step + 1 < steps) {
            load(next_head, next_row0, stage ^ 1);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        block_sync();
        const u32 rows = base + ROWS + KILN_FLASH_BYTES * 2 * stage, grads = rows + KILN_FLASH_BYTES;
        const u32 besides = base + BESIDES + BESIDES_BYTES * stage + lane % 4 * 24;
        // Half of the rows at a time: all of them would not fit in the registers.
#pragma unroll 1
        for (u32 part = 0; part < KILN_FLASH_TILE; part += 32) {
            float s[4][4], d[4][4];
            flash_scores(s, base, warp * 16, rows, part, lane);
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const u32 at = besides + part * 12 + j * 96 + i * 12, row = row0 + part + j * 8 + lane % 4 * 2 + i;
                    const u32 first = ld_shared_u32(at);
                    const float log_sum = as_float(ld_shared_u32(at + 4));
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const bool seen = key + half * 8 <= row && key + half * 8 >= first;
                        float& x = s[j][half * 2 + i];
                        x = seen ? exp2_approx(x * (scale * KILN_LOG2E) - log_sum) : 0;
                    }
                }
            flash_apply(out_v, s, grads, part / 16, lane);
            flash_scores(d, base + KILN_FLASH_BYTES, warp * 16, grads, part, lane);
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float minus = as_float(ld_shared_u32(besides + part * 12 + j * 96 + (i & 1) * 12 + 8));
                    d[j][i] = s[j][i] * (d[j][i] - minus) * scale;
                }
            flash_apply(out_k, d, rows, part / 16, lane);
        }
        block_sync();
        head = next_head;
        row0 = next_row0;
    }
    flash_store(dk + kv, p.k_row, key0 + warp * 16, seq, out_k, 1, 1, lane);
    flash_store(dv + kv, p.k_row, key0 + warp * 16, seq, out_v, 1, 1, lane);
}
