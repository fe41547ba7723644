// Sums of products in AVX-512, reduced once: dot takes two rows a term, combine a row and a weight.
#pragma once
#include "avx512_arithmetic.h"

namespace tacit {
namespace {

// Sums of products of 52-bit numbers, low and high halves apart: up to 2^12 of them.
struct NarrowSum {
    V low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    TACIT_INLINE void add_product(V a, V b) {
        low = _mm512_madd52lo_epu64(low, a, b);
        high = _mm512_madd52hi_epu64(high, a, b);
    }
};

struct NarrowReduction {
    Narrow m;
    V one, w52, c52;
    explicit NarrowReduction(const Modulus &x)
        : m(x), one(set(x.one.w52)), w52(set(x.two52.w)), c52(set(x.two52.w52)) {}
    // high 2^52 + low, high < 2^52 after the carry (true for sums below 2^104), to [0, q).
    TACIT_INLINE V operator()(const NarrowSum &sum) const {
        const V high = add(sum.high, _mm512_srli_epi64(sum.low, 52));
        V quotient = _mm512_madd52hi_epu64(Narrow::zero(), high, c52);
        quotient = _mm512_madd52hi_epu64(quotient, sum.low, one);
        V r = _mm512_madd52lo_epu64(_mm512_and_si512(sum.low, m.mask), high, w52);
        r = _mm512_and_si512(_mm512_madd52lo_epu64(r, quotient, m.minus_q), m.mask);  // < 4q
        return m.reduce(r);
    }
};

constexpr size_t kNarrowTerms = 16;  // of numbers below 2^50: sums below 2^104
constexpr int kSplit = 48;           // of sources below 2^60: 16 (2^48 + 2^12) 2^50 < 2^104

// Many terms: sums of a block of vectors stay in registers while the terms go by, so that two rows
// are read at a time and not all: rows lie powers of two apart, where the caches hold only eight.
// Few terms: blocks of one vector, which reads every row in its order.
constexpr size_t kNarrowBlock = 8, kWideBlock = 4, kFewTerms = 4;

// A page ahead, where the processor's own prefetching stops; callers go by pieces of a page.
TACIT_INLINE void prefetch_ahead(const u64 *p) { __builtin_prefetch(p + 512, 0, 2); }

// Where and how the k-th vector of a row is read: forwards; or backwards, from the row's last vector
// on, where another sum has just read it forwards and neighbouring pieces lie before.
struct Forwards {
    static const u64 *start(const u64 *row, size_t, size_t i) { return row + i; }
    TACIT_INLINE static V take(const u64 *p, size_t k) {
        prefetch_ahead(p + 8 * k);
        return load(p + 8 * k);
    }
    TACIT_INLINE static void prefetch_other(const u64 *p) { prefetch_ahead(p); }
};

struct Backwards {
    static const u64 *start(const u64 *row, size_t n, size_t i) { return row + n - 8 - i; }
    TACIT_INLINE static V take(const u64 *p, size_t k) {
        const V order = _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm512_permutexvar_epi64(order, load(p - 8 * k));
    }
    TACIT_INLINE static void prefetch_other(const u64 *p) { __builtin_prefetch(p - 512, 0, 2); }
};

template <size_t kBlock>
struct NarrowBlock {
    static constexpr size_t kLength = 8 * kBlock;
    NarrowSum sums[kBlock];
    template <class Way>
    TACIT_INLINE void add_rows(const u64 *a, const u64 *b) {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            Way::prefetch_other(a + 8 * k);
            sums[k].add_product(load(a + 8 * k), Way::take(b, k));
        }
    }
    TACIT_INLINE void add_row(const u64 *a, u64 weight) {
        const V w = set(weight);
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) sums[k].add_product(load(a + 8 * k), w);
    }
    TACIT_INLINE void add_wide_row(const u64 *a, u64 weight, u64 high_weight) {
        const V w = set(weight), high = set(high_weight), low_bits = set((u64(1) << kSplit) - 1);
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            const V x = load(a + 8 * k);
            sums[k].add_product(_mm512_and_si512(x, low_bits), w);
            sums[k].add_product(_mm512_srli_epi64(x, kSplit), high);
        }
    }
    TACIT_INLINE void finish(const NarrowReduction &reduction, bool more, u64 *out) const {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            V r = reduction(sums[k]);
            if (more) r = below(add(r, load(out + 8 * k)), reduction.m.q);
            store(out + 8 * k, r);
        }
    }
};

template <class Way, size_t kBlock>
void dot_narrow_blocks(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                       const u64 *const *b, u64 *out) {
    using Block = NarrowBlock<kBlock>;
    const NarrowReduction reduction(m);
    for (size_t first = 0; first < terms; first += kNarrowTerms) {
        const size_t last = first + kNarrowTerms < terms ? first + kNarrowTerms : terms;
        for (size_t i = 0; i < n; i += Block::kLength) {
            Block block;
            for (size_t t = first; t < last; ++t)
                block.template add_rows<Way>(a[t] + i, Way::start(b[t], n, i));
            block.finish(reduction, first > 0, out + i);
        }
    }
}

template <class Way>
void dot_narrow(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                const u64 *const *b, u64 *out) {
    if (terms <= kFewTerms) return dot_narrow_blocks<Way, 1>(m, n, terms, a, b, out);
    dot_narrow_blocks<Way, kNarrowBlock>(m, n, terms, a, b, out);
}

void combine_narrow(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                    const u64 *weights, bool wide, u64 *out) {
    const NarrowReduction reduction(m);
    for (size_t first = 0; first < terms; first += kNarrowTerms) {
        const size_t last = first + kNarrowTerms < terms ? first + kNarrowTerms : terms;
        const size_t wide_last = wide ? last : first;
        u64 high_weights[kNarrowTerms];
        for (size_t t = first; t < wide_last; ++t)
            high_weights[t - first] = mul_mod(weights[t], (u64(1) << kSplit) % m.q, m.q);
        for (size_t i = 0; i < n; i += NarrowBlock<kNarrowBlock>::kLength) {
            NarrowBlock<kNarrowBlock> block;
            for (size_t t = first; t < wide_last; ++t)
                block.add_wide_row(a[t] + i, weights[t], high_weights[t - first]);
            for (size_t t = wide_last; t < last; ++t) block.add_row(a[t] + i, weights[t]);
            block.finish(reduction, first > 0, out + i);
        }
    }
}

// Sums of products of 60-bit numbers in 30-bit halves: 7 between carries, since
// 2 * 7 * 2^60 + 2^30 < 2^64, and 14 in all, since 14 * 2^60 + 2^38 < 2^64.
struct WideSum {
    V low = _mm512_setzero_si512(), middle = low, high = low;
    TACIT_INLINE void add_product(V a0, V a1, V b0, V b1) {
        low = add(low, _mm512_mul_epu32(a0, b0));
        middle = add(middle, _mm512_mul_epu32(a0, b1));
        middle = add(middle, _mm512_mul_epu32(a1, b0));
        high = add(high, _mm512_mul_epu32(a1, b1));
    }
    // Make room for as many again: low and middle below 2^30, high below 7 2^60 + 2^37.
    TACIT_INLINE void carry(V half) {
        const V sum = add(_mm512_and_si512(middle, half), _mm512_srli_epi64(low, 30));
        high = add(add(high, _mm512_srli_epi64(middle, 30)), _mm512_srli_epi64(sum, 30));
        middle = _mm512_and_si512(sum, half);
        low = _mm512_and_si512(low, half);
    }
};

struct WideReduction {
    Wide m;
    V half, one, one_high, w60, c60, c60_high;
    explicit WideReduction(const Modulus &x)
        : m(x), half(set((u64(1) << 30) - 1)), one(set(x.one.w64)), one_high(set(x.one.w64 >> 32)),
          w60(set(x.two60.w)), c60(set(x.two60.w64)), c60_high(set(x.two60.w64 >> 32)) {}
    // Carries give high 2^60 + low with low < 2^60. Then, as in Wide::mul, low 1 and high (2^60 mod
    // q) each to [0, 4q), with one product of the quotients' sum and q.
    TACIT_INLINE V operator()(WideSum sum) const {
        sum.carry(half);
        const V low = add(sum.low, _mm512_slli_epi64(sum.middle, 30));
        const V k = add(m.quotient(low, one, one_high), m.quotient(sum.high, c60, c60_high));
        const V r = add(low, _mm512_mullo_epi64(sum.high, w60));
        return m.reduce(sub(r, _mm512_mullo_epi64(k, m.q)));  // < 8q before
    }
};

template <size_t kBlock>
struct WideBlock {
    static constexpr size_t kLength = 8 * kBlock;
    WideSum sums[kBlock];
    V half = set((u64(1) << 30) - 1);
    template <class Way>
    TACIT_INLINE void add_rows(const u64 *a, const u64 *b) {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            Way::prefetch_other(a + 8 * k);
            const V x = load(a + 8 * k), y = Way::take(b, k);
            sums[k].add_product(_mm512_and_si512(x, half), _mm512_srli_epi64(x, 30),
                                _mm512_and_si512(y, half), _mm512_srli_epi64(y, 30));
        }
    }
    TACIT_INLINE void add_row(const u64 *a, u64 weight) {
        const V low = set(weight & ((u64(1) << 30) - 1)), high = set(weight >> 30);
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            const V x = load(a + 8 * k);
            sums[k].add_product(_mm512_and_si512(x, half), _mm512_srli_epi64(x, 30), low, high);
        }
    }
    TACIT_INLINE void carry() {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) sums[k].carry(half);
    }
    TACIT_INLINE void finish(const WideReduction &reduction, bool more, u64 *out) const {
        TACIT_UNROLL
        for (size_t k = 0; k < kBlock; ++k) {
            V r = reduction(sums[k]);
            if (more) r = below(add(r, load(out + 8 * k)), reduction.m.q);
            store(out + 8 * k, r);
        }
    }
};

constexpr size_t kWideTerms = 14, kCarry = 7;

template <class Way, size_t kBlock>
void dot_wide_blocks(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                     const u64 *const *b, u64 *out) {
    using Block = WideBlock<kBlock>;
    const WideReduction reduction(m);
    for (size_t first = 0; first < terms; first += kWideTerms) {
        const size_t last = first + kWideTerms < terms ? first + kWideTerms : terms;
        for (size_t i = 0; i < n; i += Block::kLength) {
            Block block;
            for (size_t t = first; t < last; ++t) {
                if (t == first + kCarry) block.carry();
                block.template add_rows<Way>(a[t] + i, Way::start(b[t], n, i));
            }
            block.finish(reduction, first > 0, out + i);
        }
    }
}

template <class Way>
void dot_wide(const Modulus &m, size_t n, size_t terms, const u64 *const *a, const u64 *const *b,
              u64 *out) {
    if (terms <= kFewTerms) return dot_wide_blocks<Way, 1>(m, n, terms, a, b, out);
    dot_wide_blocks<Way, kWideBlock>(m, n, terms, a, b, out);
}

void combine_wide(const Modulus &m, size_t n, size_t terms, const u64 *const *a,
                  const u64 *weights, bool, u64 *out) {
    const WideReduction reduction(m);
    for (size_t first = 0; first < terms; first += kWideTerms) {
        const size_t last = first + kWideTerms < terms ? first + kWideTerms : terms;
        for (size_t i = 0; i < n; i += WideBlock<kWideBlock>::kLength) {
            WideBlock<kWideBlock> block;
            for (size_t t = first; t < last; ++t) {
                if (t == first + kCarry) block.carry();
                block.add_row(a[t] + i, weights[t]);
            }
            block.finish(reduction, first > 0, out + i);
        }
    }
}

}  // namespace
}  // namespace tacit
