// AVX-512 kernels: 52-bit multiply-add (IFMA) for primes below 2^50, 64-bit integers up to 2^60.
//
// Bounds, narrow (q < 2^50): mul takes any x < 2^52 to [0, 2q); values between layers are below
// 4q < 2^52. Wide (q < 2^60): mul takes any x < 2^64 to [0, 4q), because the high half of its
// product may be up to 2 too small; values between layers are below 8q < 2^63.
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

    // x < 2^64 -> [0, 4q): floor(x w' / 2^64) less 0, 1 or 2.
    TACIT_INLINE V mul(V x, V w, V companion) const {
        const V xh = _mm512_srli_epi64(x, 32), wh = _mm512_srli_epi64(companion, 32);
        const V a = _mm512_srli_epi64(_mm512_mul_epu32(xh, companion), 32);
        const V b = _mm512_srli_epi64(_mm512_mul_epu32(x, wh), 32);
        const V high = add(add(_mm512_mul_epu32(xh, wh), a), b);
        return sub(_mm512_mullo_epi64(x, w), _mm512_mullo_epi64(high, q));
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

void encode_root_narrow(const Modulus &m, u64 w, u64 out[2]) {
    out[0] = w;
    out[1] = static_cast<u64>((u128(w) << 52) / m.q);
}

void encode_root_wide(const Modulus &m, u64 w, u64 out[2]) {
    out[0] = w;
    out[1] = static_cast<u64>((u128(w) << 64) / m.q);
}

void add_rows(const Modulus &m, size_t n, const u64 *a, const u64 *b, u64 *out) {
    const V q = set(m.q);
    for (size_t i = 0; i < n; i += 8) store(out + i, below(add(load(a + i), load(b + i)), q));
}

void subtract_rows(const Modulus &m, size_t n, const u64 *a, const u64 *b, u64 *out) {
    const V q = set(m.q);
    for (size_t i = 0; i < n; i += 8) {
        const V d = sub(load(a + i), load(b + i));
        store(out + i, _mm512_min_epu64(d, add(d, q)));
    }
}

void add_constant(const Modulus &m, size_t n, const u64 *a, u64 constant, u64 *out) {
    const V q = set(m.q), c = set(constant);
    for (size_t i = 0; i < n; i += 8) store(out + i, below(add(load(a + i), c), q));
}

template <class M, bool Minus, bool Plus>
void scale_rows(const Modulus &m, size_t n, const u64 *a, const u64 *minus, const u64 *plus,
                const Factor &factor, u64 *out) {
    const M arithmetic(m);
    const V w = set(factor.w), companion = set(M::companion_of(factor));
    for (size_t i = 0; i < n; i += 8) {
        V x = load(a + i);
        if (Minus) x = sub(add(x, arithmetic.q), load(minus + i));  // < 2q
        x = arithmetic.reduce_mul(arithmetic.mul(x, w, companion));
        if (Plus) x = below(add(x, load(plus + i)), arithmetic.q);
        store(out + i, x);
    }
}

template <class M>
void scale(const Modulus &m, size_t n, const u64 *a, const u64 *minus, const u64 *plus,
           const Factor &w, u64 *out) {
    if (minus && plus) return scale_rows<M, true, true>(m, n, a, minus, plus, w, out);
    if (minus) return scale_rows<M, true, false>(m, n, a, minus, plus, w, out);
    if (plus) return scale_rows<M, false, true>(m, n, a, minus, plus, w, out);
    scale_rows<M, false, false>(m, n, a, minus, plus, w, out);
}

// Sums of products of 52-bit numbers, low and high halves apart: up to 2^12 of them.
struct NarrowSum {
    V low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    TACIT_INLINE void add_product(V a, V b) {
        low = _mm512_madd52lo_epu64(low, a, b);
        high = _mm512_madd52hi_epu64(high, a, b);
    }
    // high 2^52 + low, high < 2^52 after the carry (true for sums below 2^104), to [0, q).
    TACIT_INLINE V reduce(const Narrow &m, V w, V w_companion, V one_companion) const {
        const V h = add(high, _mm512_srli_epi64(low, 52));
        V quotient = _mm512_madd52hi_epu64(Narrow::zero(), h, w_companion);
        quotient = _mm512_madd52hi_epu64(quotient, low, one_companion);
        V r = _mm512_madd52lo_epu64(_mm512_and_si512(low, m.mask), h, w);
        r = _mm512_and_si512(_mm512_madd52lo_epu64(r, quotient, m.minus_q), m.mask);  // < 4q
        return m.reduce(r);
    }
};

constexpr size_t kNarrowTerms = 16;  // of numbers below 2^50: sums below 2^104
constexpr int kSplit = 48;           // of sources below 2^60: 16 (2^48 + 2^12) 2^50 < 2^104

void dot_narrow(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                const u64 *const *b, u64 *out) {
    const Narrow arithmetic(m);
    const V w = set(m.two52.w), companion = set(m.two52.w52), one = set(m.one.w52);
    for (size_t first = 0; first < terms; first += kNarrowTerms) {
        const size_t last = first + kNarrowTerms < terms ? first + kNarrowTerms : terms;
        for (size_t i = 0; i < n; i += 8) {
            NarrowSum sum;
            for (size_t t = first; t < last; ++t) sum.add_product(load(a[t] + i), load(b[t] + i));
            V r = sum.reduce(arithmetic, w, companion, one);
            if (first) r = below(add(r, load(out + i)), arithmetic.q);
            store(out + i, r);
        }
    }
}

template <bool WideSources>
void combine_narrow_rows(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                         const u64 *weights, u64 *out) {
    const Narrow arithmetic(m);
    const V w = set(m.two52.w), companion = set(m.two52.w52), one = set(m.one.w52);
    const V low_bits = set((u64(1) << kSplit) - 1);
    for (size_t first = 0; first < terms; first += kNarrowTerms) {
        const size_t count = terms - first < kNarrowTerms ? terms - first : kNarrowTerms;
        u64 high_weights[kNarrowTerms];
        if (WideSources)
            for (size_t t = 0; t < count; ++t)
                high_weights[t] = mul_mod(weights[first + t], (u64(1) << kSplit) % m.q, m.q);
        for (size_t i = 0; i < n; i += 8) {
            NarrowSum sum;
            for (size_t t = 0; t < count; ++t) {
                const V x = load(a[first + t] + i);
                const V low = WideSources ? _mm512_and_si512(x, low_bits) : x;
                sum.add_product(low, set(weights[first + t]));
                if (WideSources)
                    sum.add_product(_mm512_srli_epi64(x, kSplit), set(high_weights[t]));
            }
            V r = sum.reduce(arithmetic, w, companion, one);
            if (first) r = below(add(r, load(out + i)), arithmetic.q);
            store(out + i, r);
        }
    }
}

void combine_narrow(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                    const u64 *weights, bool wide, u64 *out) {
    if (wide) return combine_narrow_rows<true>(m, n, terms, a, weights, out);
    combine_narrow_rows<false>(m, n, terms, a, weights, out);
}

// Sums of up to 8 products of 60-bit numbers in 30-bit halves: 2 * 8 * 2^60 <= 2^64.
struct WideSum {
    V low = _mm512_setzero_si512(), middle = low, high = low;
    TACIT_INLINE void add_product(V a0, V a1, V b0, V b1) {
        low = add(low, _mm512_mul_epu32(a0, b0));
        middle = add(middle, _mm512_mul_epu32(a0, b1));
        middle = add(middle, _mm512_mul_epu32(a1, b0));
        high = add(high, _mm512_mul_epu32(a1, b1));
    }
};

struct WideReduction {
    Wide m;
    V one, w30, c30, w60, c60, q8;
    explicit WideReduction(const Modulus &x)
        : m(x), one(set(x.one.w64)), w30(set(x.two30.w)), c30(set(x.two30.w64)),
          w60(set(x.two60.w)), c60(set(x.two60.w64)), q8(set(8 * x.q)) {}
    TACIT_INLINE V operator()(const WideSum &sum) const {
        V r = add(m.mul(sum.low, set(1), one), m.mul(sum.middle, w30, c30));
        r = add(r, m.mul(sum.high, w60, c60));  // < 12 q < 2^64
        return m.reduce(below(r, q8));
    }
};

constexpr size_t kWideTerms = 8;

void dot_wide(const Modulus &m, size_t n, size_t terms, const u64 *const *a, const u64 *const *b,
              u64 *out) {
    const WideReduction reduction(m);
    const V half = set((u64(1) << 30) - 1);
    for (size_t first = 0; first < terms; first += kWideTerms) {
        const size_t last = first + kWideTerms < terms ? first + kWideTerms : terms;
        for (size_t i = 0; i < n; i += 8) {
            WideSum sum;
            for (size_t t = first; t < last; ++t) {
                const V x = load(a[t] + i), y = load(b[t] + i);
                sum.add_product(_mm512_and_si512(x, half), _mm512_srli_epi64(x, 30),
                                _mm512_and_si512(y, half), _mm512_srli_epi64(y, 30));
            }
            V r = reduction(sum);
            if (first) r = below(add(r, load(out + i)), reduction.m.q);
            store(out + i, r);
        }
    }
}

void combine_wide(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                  const u64 *weights, bool, u64 *out) {
    const WideReduction reduction(m);
    const u64 half_mask = (u64(1) << 30) - 1;
    const V half = set(half_mask);
    for (size_t first = 0; first < terms; first += kWideTerms) {
        const size_t last = first + kWideTerms < terms ? first + kWideTerms : terms;
        for (size_t i = 0; i < n; i += 8) {
            WideSum sum;
            for (size_t t = first; t < last; ++t) {
                const V x = load(a[t] + i);
                sum.add_product(_mm512_and_si512(x, half), _mm512_srli_epi64(x, 30),
                                set(weights[t] & half_mask), set(weights[t] >> 30));
            }
            V r = reduction(sum);
            if (first) r = below(add(r, load(out + i)), reduction.m.q);
            store(out + i, r);
        }
    }
}

// x < 2^60 modulo q, to [0, q).
TACIT_INLINE V reduce_any(const Wide &m, const Modulus &to, V x) {
    return m.reduce_mul(m.mul(x, set(1), set(to.one.w64)));
}

TACIT_INLINE V reduce_any(const Narrow &m, const Modulus &to, V x) {
    const V low = m.mul(_mm512_and_si512(x, m.mask), set(1), set(to.one.w52));       // < 2q
    const V high = m.mul(_mm512_srli_epi64(x, 52), set(to.two52.w), set(to.two52.w52));
    return m.reduce(add(low, high));
}

template <class M>
void centre(const Modulus &from, const Modulus &to, size_t n, const u64 *a, u64 *out) {
    const M arithmetic(to);
    const V half = set(from.q >> 1);
    const V shift = set(to.q - from.q % to.q);  // -from mod to, 1 .. to
    for (size_t i = 0; i < n; i += 8) {
        const V x = load(a + i);
        const V r = reduce_any(arithmetic, to, x);
        const __mmask8 negative = _mm512_cmpgt_epu64_mask(x, half);
        const V moved = _mm512_mask_add_epi64(r, negative, r, shift);
        store(out + i, below(moved, arithmetic.q));
    }
}

template <bool Plus, bool Accumulate>
void permute_rows(V q, size_t n, const uint32_t *table, const V *order, const u64 *a,
                  const u64 *plus, u64 *out) {
    for (size_t block = 0; block < n / 8; ++block) {
        const uint32_t entry = table[block];
        V x = load(a + (entry & ~7u));
        if (Plus) x = below(add(x, load(plus + (entry & ~7u))), q);
        x = _mm512_permutexvar_epi64(order[entry & 7], x);
        if (Accumulate) x = below(add(x, load(out + 8 * block)), q);
        store(out + 8 * block, x);
    }
}

}  // namespace

void permute_avx512(const Modulus &m, size_t n, const uint32_t *table, const u64 (*orders)[8],
                    const u64 *a, const u64 *plus, bool accumulate, u64 *out) {
    const V q = set(m.q);
    V order[8];
    for (int k = 0; k < 8; ++k) order[k] = load(orders[k]);
    if (plus && accumulate) return permute_rows<true, true>(q, n, table, order, a, plus, out);
    if (plus) return permute_rows<true, false>(q, n, table, order, a, plus, out);
    if (accumulate) return permute_rows<false, true>(q, n, table, order, a, plus, out);
    permute_rows<false, false>(q, n, table, order, a, plus, out);
}

const Kernels kAvx512NarrowKernels = {
    8, encode_root_narrow, Ntt<Arithmetic<Narrow>>::forward, Ntt<Arithmetic<Narrow>>::inverse,
    add_rows, subtract_rows, scale<Narrow>, add_constant, dot_narrow, combine_narrow,
    centre<Narrow>};

const Kernels kAvx512WideKernels = {
    8, encode_root_wide, Ntt<Arithmetic<Wide>>::forward, Ntt<Arithmetic<Wide>>::inverse, add_rows,
    subtract_rows, scale<Wide>, add_constant, dot_wide, combine_wide, centre<Wide>};

}  // namespace tacit
