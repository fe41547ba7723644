// AVX2 on 64-bit integers: comparison by sign, products from 32-bit halves, sums of products.
//
// Bounds for q < 2^60: mul takes any x < 2^64 to [0, 4q), because the high half of its product may
// be up to 2 too small; values between layers of the NTT are below 8q < 2^63.
#pragma once
#include <immintrin.h>

#include "ntt_core.h"

namespace tacit {
namespace {

using I = __m256i;

TACIT_INLINE I set(u64 x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
TACIT_INLINE I add(I a, I b) { return _mm256_add_epi64(a, b); }
TACIT_INLINE I sub(I a, I b) { return _mm256_sub_epi64(a, b); }
TACIT_INLINE I mul32(I a, I b) { return _mm256_mul_epu32(a, b); }  // of the low halves
TACIT_INLINE I load_row(const u64 *p) {
    return _mm256_loadu_si256(reinterpret_cast<const I *>(p));
}
TACIT_INLINE void store_row(u64 *p, I v) { _mm256_storeu_si256(reinterpret_cast<I *>(p), v); }

// a where the sign bit of x is set, else b.
TACIT_INLINE I if_negative(I x, I a, I b) {
    return _mm256_castpd_si256(_mm256_blendv_pd(_mm256_castsi256_pd(b), _mm256_castsi256_pd(a),
                                                _mm256_castsi256_pd(x)));
}
// x in [0, 2b) to [0, b), for |x - b| < 2^63: the sign of the difference is the comparison.
TACIT_INLINE I below(I x, I b) {
    const I difference = sub(x, b);
    return if_negative(difference, x, difference);
}

struct Wide {
    I q, q2, q4, q_swapped, high_half, n_inverse, n_companion;

    explicit Wide(const Modulus &m)
        : q(set(m.q)), q2(set(2 * m.q)), q4(set(4 * m.q)), q_swapped(swapped(q)),
          high_half(set(~u64(0xffffffff))), n_inverse(set(m.n_inverse.w)),
          n_companion(set(m.n_inverse.w64)) {}

    static TACIT_INLINE I swapped(I x) { return _mm256_shuffle_epi32(x, 0xb1); }
    // floor(x w' / 2^64) less 0, 1 or 2, for any x < 2^64: the lowest of four products is left
    // out, and two are cut off.
    static TACIT_INLINE I quotient(I x, I companion) {
        const I xh = _mm256_srli_epi64(x, 32), high = _mm256_srli_epi64(companion, 32);
        const I a = _mm256_srli_epi64(mul32(xh, companion), 32);
        const I b = _mm256_srli_epi64(mul32(x, high), 32);
        return add(add(mul32(xh, high), a), b);
    }
    // x w - k q modulo 2^64. The cross products matter modulo 2^32 only, so that one 32-bit
    // multiplication gives both of a pair.
    TACIT_INLINE I difference(I x, I w, I k) const {
        const I low = sub(mul32(x, w), mul32(k, q));
        const I cross = _mm256_sub_epi32(_mm256_mullo_epi32(x, swapped(w)),
                                         _mm256_mullo_epi32(k, q_swapped));
        return add(add(low, _mm256_slli_epi64(cross, 32)), _mm256_and_si256(cross, high_half));
    }
    // x < 2^64 -> [0, 4q)
    TACIT_INLINE I mul(I x, I w, I companion) const {
        return difference(x, w, quotient(x, companion));
    }
    TACIT_INLINE I reduce_mul(I x) const { return below(below(x, q2), q); }  // [0, 4q) -> [0, q)
    TACIT_INLINE I reduce(I x) const { return reduce_mul(below(x, q4)); }    // [0, 8q) -> [0, q)
};

// The NTT's arithmetic: values below 8q; inverse: below 4q.
struct Integers : Wide {
    using V = I;
    static constexpr int lanes = 4;
    static constexpr int max_radix_log = 2;
    explicit Integers(const Modulus &m) : Wide(m) {}

    static TACIT_INLINE V broadcast(u64 x) { return set(x); }
    static TACIT_INLINE V load_root(const u64 *p) { return load_row(p); }
    static TACIT_INLINE V load_in(const u64 *p) { return load_row(p); }
    static TACIT_INLINE V load(const u64 *p) { return load_row(p); }
    static TACIT_INLINE void store(u64 *p, V v) { store_row(p, v); }
    TACIT_INLINE void store_out(u64 *p, V v) const { store_row(p, reduce(v)); }
    static TACIT_INLINE void settle(V *) {}
    static TACIT_INLINE void transpose(V *v) {
        const V a = _mm256_unpacklo_epi64(v[0], v[1]), b = _mm256_unpackhi_epi64(v[0], v[1]);
        const V c = _mm256_unpacklo_epi64(v[2], v[3]), d = _mm256_unpackhi_epi64(v[2], v[3]);
        v[0] = _mm256_permute2x128_si256(a, c, 0x20);
        v[1] = _mm256_permute2x128_si256(b, d, 0x20);
        v[2] = _mm256_permute2x128_si256(a, c, 0x31);
        v[3] = _mm256_permute2x128_si256(b, d, 0x31);
    }
    TACIT_INLINE void ct(V &x, V &y, V w, V companion) const {
        const V t = mul(y, w, companion);  // < 4q
        const V u = below(x, q4);          // < 4q
        x = add(u, t);                     // < 8q
        y = sub(add(u, q4), t);            // < 8q
    }
    TACIT_INLINE void gs(V &x, V &y, V w, V companion) const {
        const V difference = sub(add(x, q4), y);  // < 8q
        x = below(add(x, y), q4);                 // < 4q
        y = mul(difference, w, companion);        // < 4q
    }
    TACIT_INLINE void gs_last(V &x, V &y, V w, V companion) const {
        const V difference = sub(add(x, q4), y);
        x = mul(add(x, y), n_inverse, n_companion);
        y = mul(difference, w, companion);
    }
};

// Sums of products of numbers below 2^60 in 30-bit halves: 7 between carries, since
// 2 * 7 * 2^60 + 2^30 < 2^64, and 14 in all, since 14 * 2^60 + 2^38 < 2^64.
constexpr size_t kTerms = 14, kCarry = 7;
constexpr u64 kHalf = (u64(1) << 30) - 1;

struct Sum {
    I low = _mm256_setzero_si256(), middle = low, high = low;
    TACIT_INLINE void add_product(I a0, I a1, I b0, I b1) {
        low = add(low, mul32(a0, b0));
        middle = add(middle, add(mul32(a0, b1), mul32(a1, b0)));
        high = add(high, mul32(a1, b1));
    }
    // Then low and middle are below 2^30, and the sum is high 2^60 + middle 2^30 + low.
    TACIT_INLINE void carry(I half) {
        const I sum = add(_mm256_and_si256(middle, half), _mm256_srli_epi64(low, 30));
        high = add(add(high, _mm256_srli_epi64(middle, 30)), _mm256_srli_epi64(sum, 30));
        middle = _mm256_and_si256(sum, half);
        low = _mm256_and_si256(low, half);
    }
};

// A page ahead, where the processor's own prefetching stops; callers go by pieces of a page.
TACIT_INLINE void prefetch_ahead(const u64 *p) { __builtin_prefetch(p + 512, 0, 2); }

// How a row is read: forwards; or backwards, from its last vector on, where another sum has just
// read it forwards and neighbouring pieces lie before.
struct Forwards {
    static const u64 *start(const u64 *row, size_t, size_t i) { return row + i; }
    TACIT_INLINE static I take(const u64 *p, size_t k) {
        if (k % 2 == 0) prefetch_ahead(p + 4 * k);
        return load_row(p + 4 * k);
    }
    TACIT_INLINE static void prefetch_other(const u64 *p) { prefetch_ahead(p); }
};

struct Backwards {
    static const u64 *start(const u64 *row, size_t n, size_t i) { return row + n - 4 - i; }
    TACIT_INLINE static I take(const u64 *p, size_t k) {
        return _mm256_permute4x64_epi64(load_row(p - 4 * k), 0x1b);
    }
    TACIT_INLINE static void prefetch_other(const u64 *p) { __builtin_prefetch(p - 512, 0, 2); }
};

// Sums of a block of vectors stay in registers while the terms go by, so that two rows are read at
// a time and not all: rows lie powers of two apart, where the caches hold only eight.
constexpr size_t kBlock = 4;

struct SumBlock {
    static constexpr size_t kLength = 4 * kBlock;
    Sum sums[kBlock];
    I half = set(kHalf);
    template <class Way>
    TACIT_INLINE void add_rows(const u64 *a, const u64 *b) {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            if (k % 2 == 0) Way::prefetch_other(a + 4 * k);
            const I x = load_row(a + 4 * k), y = Way::take(b, k);
            sums[k].add_product(_mm256_and_si256(x, half), _mm256_srli_epi64(x, 30),
                                _mm256_and_si256(y, half), _mm256_srli_epi64(y, 30));
        }
    }
    TACIT_INLINE void add_row(const u64 *a, u64 weight) {
        const I low = set(weight & kHalf), high = set(weight >> 30);
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            const I x = load_row(a + 4 * k);
            sums[k].add_product(_mm256_and_si256(x, half), _mm256_srli_epi64(x, 30), low, high);
        }
    }
    TACIT_INLINE void carry() {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) sums[k].carry(half);
    }
};

// To residues of any prime below 2^60: after a carry, middle 2^30 + low < 2^60 and high 2^60, each
// to [0, 4q) as in Wide::mul.
struct Reduction {
    Wide m;
    I one, w60, c60;
    explicit Reduction(const Modulus &x)
        : m(x), one(set(x.one.w64)), w60(set(x.two60.w)), c60(set(x.two60.w64)) {}
    TACIT_INLINE I operator()(const Sum &sum) const {
        const I low = add(sum.low, _mm256_slli_epi64(sum.middle, 30));
        const I k = add(Wide::quotient(low, one), Wide::quotient(sum.high, c60));
        return m.reduce(add(low, m.difference(sum.high, w60, k)));  // < 8q before
    }
};

// term(block, t, i) adds one block of term t.
template <class Term>
TACIT_INLINE void sum_rows(const Modulus &m, size_t n, size_t terms, const Term &term, u64 *out) {
    const Reduction reduction(m);
    const I q = set(m.q);
    for (size_t first = 0; first < terms; first += kTerms) {
        const size_t last = first + kTerms < terms ? first + kTerms : terms;
        for (size_t i = 0; i < n; i += SumBlock::kLength) {
            SumBlock block;
            for (size_t t = first; t < last; ++t) {
                if (t == first + kCarry) block.carry();
                term(block, t, i);
            }
            block.carry();
            TACIT_UNROLL
            for (size_t k = 0; k < kBlock; ++k) {
                I r = reduction(block.sums[k]);
                if (first) r = below(add(r, load_row(out + i + 4 * k)), q);
                store_row(out + i + 4 * k, r);
            }
        }
    }
}

template <class Way>
void dot_rows(const Modulus &m, size_t n, size_t terms, const u64 *const *a, const u64 *const *b,
              u64 *out) {
    sum_rows(m, n, terms, [=](auto &block, size_t t, size_t i) __attribute__((always_inline)) {
        block.template add_rows<Way>(a[t] + i, Way::start(b[t], n, i));
    }, out);
}

void combine_rows(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                  const u64 *weights, bool, u64 *out) {
    sum_rows(m, n, terms, [=](auto &block, size_t t, size_t i) __attribute__((always_inline)) {
        block.add_row(a[t] + i, weights[t]);
    }, out);
}

}  // namespace
}  // namespace tacit
