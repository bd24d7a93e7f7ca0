// bf16 as CUDA's header of this name gives it, as far as generated kernels use it.
#pragma once
#include <cmath>
#include <cstring>

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    // Rounded to nearest, ties to even; NaN becomes CUDA's.
    __nv_bfloat16(float v) {
        unsigned u;
        memcpy(&u, &v, 4);
        bits = v != v ? 0x7fff : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    __nv_bfloat16(double v) : __nv_bfloat16((float)v) {}
    __nv_bfloat16(int v) : __nv_bfloat16((float)v) {}
    __nv_bfloat16(unsigned v) : __nv_bfloat16((float)v) {}
    __nv_bfloat16(bool v) : __nv_bfloat16((float)v) {}
    operator float() const {
        const unsigned u = (unsigned)bits << 16;
        float v;
        memcpy(&v, &u, 4);
        return v;
    }
};
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

#define KILN_BF16_OPERATOR(OP)                                                                                  \
    inline __nv_bfloat16 operator OP(__nv_bfloat16 a, __nv_bfloat16 b) { return float(a) OP float(b); }         \
    inline __nv_bfloat162 operator OP(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x OP b.x, a.y OP b.y}; }
KILN_BF16_OPERATOR(+)
KILN_BF16_OPERATOR(-)
KILN_BF16_OPERATOR(*)
KILN_BF16_OPERATOR(/)
#undef KILN_BF16_OPERATOR
inline __nv_bfloat16 operator-(__nv_bfloat16 a) { return -float(a); }
inline __nv_bfloat162 operator-(__nv_bfloat162 a) { return {-a.x, -a.y}; }
#define KILN_BF16_COMPARE(OP) \
    inline bool operator OP(__nv_bfloat16 a, __nv_bfloat16 b) { return float(a) OP float(b); }
KILN_BF16_COMPARE(==)
KILN_BF16_COMPARE(!=)
KILN_BF16_COMPARE(<)
KILN_BF16_COMPARE(<=)
KILN_BF16_COMPARE(>)
KILN_BF16_COMPARE(>=)
#undef KILN_BF16_COMPARE

#define KILN_BF16_UNARY(NAME, EXPRESSION)                         \
    inline __nv_bfloat16 h##NAME(__nv_bfloat16 a) {               \
        const float v = a;                                        \
        return EXPRESSION;                                        \
    }                                                             \
    inline __nv_bfloat162 h2##NAME(__nv_bfloat162 a) { return {h##NAME(a.x), h##NAME(a.y)}; }
KILN_BF16_UNARY(exp, std::exp(v))
KILN_BF16_UNARY(log, std::log(v))
KILN_BF16_UNARY(sin, std::sin(v))
KILN_BF16_UNARY(cos, std::cos(v))
KILN_BF16_UNARY(tanh, std::tanh(v))
KILN_BF16_UNARY(sqrt, std::sqrt(v))
KILN_BF16_UNARY(rsqrt, 1 / std::sqrt(v))
KILN_BF16_UNARY(ceil, std::ceil(v))
KILN_BF16_UNARY(floor, std::floor(v))
KILN_BF16_UNARY(trunc, std::trunc(v))
KILN_BF16_UNARY(rint, std::rint(v))
#undef KILN_BF16_UNARY

inline __nv_bfloat16 __habs(__nv_bfloat16 a) { return std::fabs(float(a)); }
inline __nv_bfloat162 __habs2(__nv_bfloat162 a) { return {__habs(a.x), __habs(a.y)}; }
inline __nv_bfloat16 __hmax(__nv_bfloat16 a, __nv_bfloat16 b) { return std::fmax(float(a), float(b)); }
inline __nv_bfloat16 __hmin(__nv_bfloat16 a, __nv_bfloat16 b) { return std::fmin(float(a), float(b)); }
inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }
inline __nv_bfloat162 __hmin2(__nv_bfloat162 a, __nv_bfloat162 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }
inline bool __hisnan(__nv_bfloat16 a) { return float(a) != float(a); }
