// o = softmax(scale q k^T) v with the mask of flash.cuh, and the natural log of each row's sum of
// exponentials. KILN_D is the head's dimension, 64 or 128.
//
// Launch: entry flash_attention; grid (ceil(seq / 64), q_heads, batch); block (128, 1, 1).
// Arguments: q, k, v bf16, start u32[batch * seq], o bf16, lse f32[batch * q_heads * seq]; then by value
// the fifteen 64-bit words of FlashParams. Shared memory: static, 640 * KILN_D bytes; with
// KILN_DYNAMIC_SHARED=1 dynamic, ask for 1,024 more.
// Needs: q_heads a multiple of kv_heads, strides multiples of 8, pointers multiples of 16.
//
// variant: flash_attention_128 flash_attention
// variant: flash_attention_128_dynamic flash_attention -DKILN_DYNAMIC_SHARED=1
// variant: flash_attention_64 flash_attention -DKILN_D=64
// elsewhere: sm_80 sm_86 sm_89 sm_100 sm_120
#include "flash.cuh"

extern "C" __global__ void __launch_bounds__(KILN_FLASH_THREADS, 2)
flash_attention(const u16* __restrict__ q, const u16* __restrict__ k, const u16* __restrict__ v,
                const u32* __restrict__ start, u16* o, float* lse, const __grid_constant__ FlashParams p) {
    KILN_SHARED(base, KILN_FLASH_BYTES * 5)
    const u32 seq = (u32)p.seq, window = (u32)p.window, t = threadIdx.x, lane = t % 32, warp = t / 32;
    const u32 head = blockIdx.y, batch = blockIdx.z;
    // The longest rows first, so that the last blocks are short ones.
    const u32 row0 = (gridDim.x - 1 - blockIdx.x) * KILN_FLASH_TILE;
    const u64 kv = batch * p.k_batch + head / (u32)(p.q_heads / p.kv_heads) * p.k_head;
    k += kv;
    v += kv;
    start += (u64)batch * seq;

    flash_load(base, q + batch * p.q_batch + head * p.q_head, p.q_row, row0, seq, t);
    const u32 end = min_u32(row0 + KILN_FLASH_TILE, seq);
    u32 key0 = flash_first(start, row0, window) / KILN_FLASH_TILE * KILN_FLASH_TILE, stage = 0;
    auto load = [&](u32 key, u32 to) {
        const u32 at = base + KILN_FLASH_BYTES * (1 + 2 * to);
        flash_load(at, k, p.k_row, key, seq, t);
        flash_load(at + KILN_FLASH_BYTES, v, p.k_row, key, seq, t);
        cp_async_commit();
    };
    load(key0, 0);

    const u32 row = row0 + warp * 16 + lane / 4; // and row + 8
    const u32 first[2] = {row < seq ? flash_first(start, row, window) : 0,
                          row + 8 < seq ? flash_first(start, row + 8, window) : 0};
    const float scale = as_float((u32)p.scale_bits) * KILN_LOG2E;
    float out[KILN_D / 8][4], top[2] = {KILN_NEVER, KILN_NEVER}, sum[2] = {0, 0};
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
        const u32 keys = base + KILN_FLASH_BYTES * (1 + 2 * stage), values = keys + KILN_FLASH_BYTES;
        float s[8][4];
        flash_scores(s, base, warp * 16, keys, 0, lane);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float high = top[half];
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const u32 key = key0 + j * 8 + lane % 4 * 2 + i;
                    float& x = s[j][half * 2 + i];
                    x = key <= row + half * 8 && key >= first[half] ? x * scale : KILN_NEVER;
                    high = high > x ? high : x;
                }
#pragma unroll
            for (int mask = 1; mask < 4; mask *= 2) {
                const float other = shfl_xor(high, mask);
                high = high > other ? high : other;
            }
            const float shrink = exp2_approx(top[half] - high);
            top[half] = high;
            float part = 0;
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float& x = s[j][half * 2 + i];
                    x = exp2_approx(x - high);
                    part += x;
                }
            sum[half] = sum[half] * shrink + part;
#pragma unroll
            for (int n = 0; n < KILN_D / 8; n++) {
                out[n][half * 2] *= shrink;
                out[n][half * 2 + 1] *= shrink;
            }
        }
        flash_apply(out, s, values, 0, lane);
        block_sync();
    }

    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += shfl_xor(sum[half], 1);
        sum[half] += shfl_xor(sum[half], 2);
        inverse[half] = 1.0f / sum[half];
        if (lane % 4 == 0 && row + half * 8 < seq)
            st_global_f32(lse + ((u64)batch * p.q_heads + head) * seq + row + half * 8,
                          (top[half] + log2_approx(sum[half])) * KILN_LN2);
    }
    flash_store(o + batch * p.o_batch + head * p.o_head, p.o_row, row0 + warp * 16, seq, out, inverse[0], inverse[1], lane);
}
