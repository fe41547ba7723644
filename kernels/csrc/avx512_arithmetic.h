// AVX-512 arithmetic: 52-bit multiply-add (IFMA) for primes below 2^50, 64-bit integers up to 2^60.
//
// Bounds, narrow (q < 2^50): mul takes any x < 2^52 to [0, 2q); values between layers are below
// 4q < 2^52. Wide (q < 2^60): mul takes any x < 2^64 to [0, 4q), because the high half of its
// product may be up to 2 too small; values between layers are below 8q < 2^63.
#pragma once
#include <immintrin.h>

#include "ntt_core.h"

namespace tacit {
namespace {

using V = __m512i;

TACIT_INLINE V set(u64 x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
TACIT_INLINE V add(V a, V b) { return _mm512_add_epi64(a, b); }
TACIT_INLINE V sub(V a, V b) { return _mm512_sub_epi64(a, b); }
// x in [0, 2b) to [0, b), for b < 2^63.
TACIT_INLINE V below(V x, V b) { return _mm512_min_epu64(x, sub(x, b)); }
TACIT_INLINE V load(const u64 *p) { return _mm512_loadu_si512(p); }
TACIT_INLINE void store(u64 *p, V v) { _mm512_storeu_si512(p, v); }

TACIT_INLINE void transpose8(V v[8]) {
    V a[8], b[8];
    TACIT_UNROLL
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
    }
    TACIT_UNROLL
    for (int i = 0; i < 8; i += 4) {
        TACIT_UNROLL
        for (int j = 0; j < 2; ++j) {
            b[i + j] = _mm512_shuffle_i64x2(a[i + j], a[i + j + 2], 0x88);
            b[i + j + 2] = _mm512_shuffle_i64x2(a[i + j], a[i + j + 2], 0xdd);
        }
    }
    TACIT_UNROLL
    for (int j = 0; j < 4; ++j) {
        v[j] = _mm512_shuffle_i64x2(b[j], b[j + 4], 0x88);
        v[j + 4] = _mm512_shuffle_i64x2(b[j], b[j + 4], 0xdd);
    }
}

struct Narrow {
    static V zero() { return _mm512_setzero_si512(); }
    V q, q2, minus_q, mask;
    V n_inverse, n_companion;

    explicit Narrow(const Modulus &m)
        : q(set(m.q)), q2(set(2 * m.q)), minus_q(set((u64(1) << 52) - m.q)),
          mask(set((u64(1) << 52) - 1)), n_inverse(set(m.n_inverse.w)),
          n_companion(set(m.n_inverse.w52)) {}

    // x < 2^52 -> x w - floor(x w' / 2^52) q, in [0, 2q)
    TACIT_INLINE V mul(V x, V w, V companion) const {
        const V high = _mm512_madd52hi_epu64(zero(), x, companion);
        const V low = _mm512_madd52lo_epu64(zero(), x, w);
        return _mm512_and_si512(_mm512_madd52lo_epu64(low, high, minus_q), mask);
    }
    static TACIT_INLINE u64 companion_of(const Factor &f) { return f.w52; }
    TACIT_INLINE V lazy_bound() const { return q2; }          // of mul
    TACIT_INLINE V reduce_mul(V x) const { return below(x, q); }  // [0, 2q) -> [0, q)
    TACIT_INLINE V reduce(V x) const { return below(below(x, q2), q); }  // [0, 4q) -> [0, q)
};

struct Wide {
    V q, q2, q4;
    V n_inverse, n_companion;

    explicit Wide(const Modulus &m)
        : q(set(m.q)), q2(set(2 * m.q)), q4(set(4 * m.q)), n_inverse(set(m.n_inverse.w)),
          n_companion(set(m.n_inverse.w64)) {}

    // floor(x w' / 2^64) less 0, 1 or 2, for any x < 2^64; `high` is w' >> 32.
    static TACIT_INLINE V quotient(V x, V companion, V high) {
        const V xh = _mm512_srli_epi64(x, 32);
        const V a = _mm512_srli_epi64(_mm512_mul_epu32(xh, companion), 32);
        const V b = _mm512_srli_epi64(_mm512_mul_epu32(x, high), 32);
        return add(add(_mm512_mul_epu32(xh, high), a), b);
    }
    // x < 2^64 -> [0, 4q)
    TACIT_INLINE V mul(V x, V w, V companion) const {
        const V k = quotient(x, companion, _mm512_srli_epi64(companion, 32));
        return sub(_mm512_mullo_epi64(x, w), _mm512_mullo_epi64(k, q));
    }
    static TACIT_INLINE u64 companion_of(const Factor &f) { return f.w64; }
    TACIT_INLINE V lazy_bound() const { return q4; }
    TACIT_INLINE V reduce_mul(V x) const { return below(below(x, q2), q); }  // [0, 4q)
    TACIT_INLINE V reduce(V x) const { return reduce_mul(below(x, q4)); }    // [0, 8q)
};

// The NTT's arithmetic: values below twice the lazy bound B of mul; inverse: below B.
template <class M>
struct Arithmetic : M {
    using V = __m512i;
    static constexpr int lanes = 8;
    static constexpr int max_radix_log = 3;
    explicit Arithmetic(const Modulus &m) : M(m) {}

    static TACIT_INLINE V broadcast(u64 x) { return set(x); }
    static TACIT_INLINE V load_root(const u64 *p) { return tacit::load(p); }
    static TACIT_INLINE V load_in(const u64 *p) { return tacit::load(p); }
    static TACIT_INLINE V load(const u64 *p) { return tacit::load(p); }
    static TACIT_INLINE void store(u64 *p, V v) { tacit::store(p, v); }
    TACIT_INLINE void store_out(u64 *p, V v) const { tacit::store(p, M::reduce(v)); }
    static TACIT_INLINE void transpose(V *v) { transpose8(v); }
    static TACIT_INLINE void settle(V *) {}

    TACIT_INLINE void ct(V &x, V &y, V w, V companion) const {
        const V t = M::mul(y, w, companion);          // < B
        const V u = below(x, M::lazy_bound());        // < B
        x = add(u, t);                                // < 2B
        y = sub(add(u, M::lazy_bound()), t);          // < 2B
    }
    TACIT_INLINE void gs(V &x, V &y, V w, V companion) const {
        const V difference = sub(add(x, M::lazy_bound()), y);  // < 2B
        x = below(add(x, y), M::lazy_bound());                 // < B
        y = M::mul(difference, w, companion);                  // < B
    }
    TACIT_INLINE void gs_last(V &x, V &y, V w, V companion) const {
        const V difference = sub(add(x, M::lazy_bound()), y);
        x = M::mul(add(x, y), M::n_inverse, M::n_companion);
        y = M::mul(difference, w, companion);
    }
};

constexpr int kSlimBits = 46;

// Forward for q < 2^46: each layer adds less than 2q, so that without any reduction values stay
// below (1 + 2 * 17) q < 64 q <= 2^52, and one multiplication by 1 reduces them at the end.
struct Slim : Arithmetic<Narrow> {
    V one;
    explicit Slim(const Modulus &m) : Arithmetic<Narrow>(m), one(set(m.one.w52)) {}
    TACIT_INLINE void store_out(u64 *p, V v) const {
        tacit::store(p, reduce_mul(mul(v, set(1), one)));
    }
    TACIT_INLINE void ct(V &x, V &y, V w, V companion) const {
        const V t = mul(y, w, companion);  // < 2q
        y = sub(add(x, q2), t);            // < bound of x + 2q
        x = add(x, t);                     // likewise
    }
};

}  // namespace
}  // namespace tacit
