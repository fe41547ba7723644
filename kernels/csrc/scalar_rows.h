// Row kernels in plain C++, for any prime below 2^60. In an unnamed namespace, so that each
// instruction set compiles its own copy.
#pragma once
#include "ntt_core.h"

namespace tacit {
namespace {

// x w - floor(x w' / 2^64) q for any x < 2^64: in [0, 2q).
TACIT_INLINE u64 mul_lazy(u64 x, u64 w, u64 companion, u64 q) {
    return x * w - static_cast<u64>(u128(x) * companion >> 64) * q;
}

TACIT_INLINE u64 below_q(u64 x, u64 q) { return x >= q ? x - q : x; }

TACIT_INLINE u64 reduce128(const Modulus &m, u128 x) {
    const u64 high = mul_lazy(static_cast<u64>(x >> 64), m.two64.w, m.two64.w64, m.q);
    const u64 low = mul_lazy(static_cast<u64>(x), 1, m.one.w64, m.q);
    return below_q(below_q(high + low, 2 * m.q), m.q);  // < 4q before
}

TACIT_INLINE void add_rows_scalar(const Modulus &m, size_t n, const u64 *a, const u64 *b,
                                  u64 *out) {
    for (size_t i = 0; i < n; ++i) out[i] = below_q(a[i] + b[i], m.q);
}

TACIT_INLINE void subtract_rows_scalar(const Modulus &m, size_t n, const u64 *a, const u64 *b,
                                       u64 *out) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] >= b[i] ? a[i] - b[i] : a[i] + m.q - b[i];
}

TACIT_INLINE void add_constant_scalar(const Modulus &m, size_t n, const u64 *a, u64 constant,
                                      u64 *out) {
    for (size_t i = 0; i < n; ++i) out[i] = below_q(a[i] + constant, m.q);
}

TACIT_INLINE void scale_scalar(const Modulus &m, size_t n, const u64 *a, const u64 *minus,
                               const u64 *plus, const Factor &w, u64 *out) {
    for (size_t i = 0; i < n; ++i) {
        const u64 x = minus ? a[i] + m.q - minus[i] : a[i];
        const u64 product = below_q(mul_lazy(x, w.w, w.w64, m.q), m.q);
        out[i] = plus ? below_q(product + plus[i], m.q) : product;
    }
}

constexpr size_t kScalarTerms = 64;  // 64 products below 2^120 stay below 2^126

// Mirrored: b[t] is read backwards.
template <bool kMirrored = false>
TACIT_INLINE void dot_scalar(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                             const u64 *const *b, u64 *out) {
    for (size_t first = 0; first < terms; first += kScalarTerms) {
        const size_t last = first + kScalarTerms < terms ? first + kScalarTerms : terms;
        for (size_t i = 0; i < n; ++i) {
            u128 sum = first ? out[i] : 0;
            for (size_t t = first; t < last; ++t)
                sum += u128(a[t][i]) * b[t][kMirrored ? n - 1 - i : i];
            out[i] = reduce128(m, sum);
        }
    }
}

TACIT_INLINE void combine_scalar(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                                 const u64 *weights, bool, u64 *out) {
    for (size_t first = 0; first < terms; first += kScalarTerms) {
        const size_t last = first + kScalarTerms < terms ? first + kScalarTerms : terms;
        for (size_t i = 0; i < n; ++i) {
            u128 sum = first ? out[i] : 0;
            for (size_t t = first; t < last; ++t) sum += u128(a[t][i]) * weights[t];
            out[i] = reduce128(m, sum);
        }
    }
}

TACIT_INLINE void centre_scalar(const Modulus &from, const Modulus &to, size_t n, const u64 *a,
                                u64 *out) {
    const u64 half = from.q >> 1, shift = to.q - from.q % to.q;
    for (size_t i = 0; i < n; ++i) {
        const u64 r = below_q(mul_lazy(a[i], 1, to.one.w64, to.q), to.q);
        out[i] = a[i] > half ? below_q(r + shift, to.q) : r;
    }
}

}  // namespace
}  // namespace tacit
