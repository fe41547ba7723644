// AVX2 + FMA kernels: for primes below 2^50 in double precision, for others in integers.
//
// In double precision a residue is a double that holds an integer. docs/engine.md proves that every
// step is exact: |x| <= q/2 after `settle`, then at most two layers, each of which adds less than
// 0.76 q (forward) or doubles (inverse: 0.5 q, 1 q, 2 q). Roots are centred, |w| <= q/2, and their
// companion is w / q rounded.
#include <immintrin.h>

#include <cstring>

#include "avx2_integers.h"

namespace tacit {
namespace {

using V = __m256d;

TACIT_INLINE V round_nearest(V x) {
    return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// x w - round(x w/q) q, |x| <= 2^52, |w| <= q/2: exact and below 0.76 q, see docs/engine.md.
TACIT_INLINE V mul_double(V x, V w, V w_over_q, V q) {
    const V quotient = round_nearest(_mm256_mul_pd(x, w_over_q));
    const V high = _mm256_mul_pd(x, w);
    const V low = _mm256_fmsub_pd(x, w, high);
    return _mm256_add_pd(_mm256_fnmadd_pd(quotient, q, high), low);
}

TACIT_INLINE double centred(u64 w, u64 q) {
    return w > q / 2 ? -double(q - w) : double(w);
}

struct Doubles {
    using V = __m256d;
    static constexpr int lanes = 4;
    static constexpr int max_radix_log = 2;
    V q, one_over_q, n_inverse, n_companion, two52;
    __m256i two52_bits;

    explicit Doubles(const Modulus &m)
        : q(_mm256_set1_pd(double(m.q))), one_over_q(_mm256_set1_pd(1.0 / double(m.q))),
          two52(_mm256_set1_pd(4503599627370496.0)), two52_bits(_mm256_castpd_si256(two52)) {
        const double factor = centred(m.n_inverse.w, m.q);
        n_inverse = _mm256_set1_pd(factor);
        n_companion = _mm256_set1_pd(factor / double(m.q));
    }

    static TACIT_INLINE V broadcast(u64 bits) {
        return _mm256_castsi256_pd(_mm256_set1_epi64x(static_cast<long long>(bits)));
    }
    static TACIT_INLINE V load_root(const u64 *p) {
        return _mm256_loadu_pd(reinterpret_cast<const double *>(p));
    }
    TACIT_INLINE V small(V x) const {  // to |x| <= q/2 (1 + 2^-50)
        return _mm256_fnmadd_pd(round_nearest(_mm256_mul_pd(x, one_over_q)), q, x);
    }
    TACIT_INLINE V load_in(const u64 *p) const {  // an integer below 2^52, by its bits
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
        const V x = _mm256_castsi256_pd(_mm256_or_si256(bits, two52_bits));
        return small(_mm256_sub_pd(x, two52));
    }
    TACIT_INLINE V load(const u64 *p) const { return small(load_root(p)); }
    static TACIT_INLINE void store(u64 *p, V v) {
        _mm256_storeu_pd(reinterpret_cast<double *>(p), v);
    }
    TACIT_INLINE void store_out(u64 *p, V v) const {
        V x = small(v);
        x = _mm256_add_pd(x, _mm256_and_pd(_mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ), q));
        // |x| may exceed q/2 by rounding, never reach q: [0, q) here.
        const __m256i bits = _mm256_castpd_si256(_mm256_add_pd(x, two52));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm256_xor_si256(bits, two52_bits));
    }
    static TACIT_INLINE void transpose(V *v) {
        const V a = _mm256_unpacklo_pd(v[0], v[1]), b = _mm256_unpackhi_pd(v[0], v[1]);
        const V c = _mm256_unpacklo_pd(v[2], v[3]), d = _mm256_unpackhi_pd(v[2], v[3]);
        v[0] = _mm256_permute2f128_pd(a, c, 0x20);
        v[1] = _mm256_permute2f128_pd(b, d, 0x20);
        v[2] = _mm256_permute2f128_pd(a, c, 0x31);
        v[3] = _mm256_permute2f128_pd(b, d, 0x31);
    }
    TACIT_INLINE void settle(V *v) const {
        for (int k = 0; k < lanes; ++k) v[k] = small(v[k]);
    }
    TACIT_INLINE void ct(V &x, V &y, V w, V companion) const {
        const V t = mul_double(y, w, companion, q);
        y = _mm256_sub_pd(x, t);
        x = _mm256_add_pd(x, t);
    }
    TACIT_INLINE void gs(V &x, V &y, V w, V companion) const {
        const V difference = _mm256_sub_pd(x, y);
        x = _mm256_add_pd(x, y);
        y = mul_double(difference, w, companion, q);
    }
    TACIT_INLINE void gs_last(V &x, V &y, V w, V companion) const {
        const V difference = _mm256_sub_pd(x, y);
        x = mul_double(_mm256_add_pd(x, y), n_inverse, n_companion, q);
        y = mul_double(difference, w, companion, q);
    }
};

void encode_root(const Modulus &m, u64 w, u64 out[2]) {
    const double root = centred(w, m.q);
    const double companion = root / double(m.q);
    std::memcpy(out, &root, sizeof root);
    std::memcpy(out + 1, &companion, sizeof companion);
}

void encode_root_wide(const Modulus &m, u64 w, u64 out[2]) {
    out[0] = w;
    out[1] = static_cast<u64>((u128(w) << 64) / m.q);
}

void add_rows(const Modulus &m, size_t n, const u64 *a, const u64 *b, u64 *out) {
    const I q = set(m.q);
    for (size_t i = 0; i < n; i += 4)
        store_row(out + i, below(add(load_row(a + i), load_row(b + i)), q));
}

void subtract_rows(const Modulus &m, size_t n, const u64 *a, const u64 *b, u64 *out) {
    const I q = set(m.q);
    for (size_t i = 0; i < n; i += 4) {
        const I d = sub(load_row(a + i), load_row(b + i));
        store_row(out + i, if_negative(d, add(d, q), d));
    }
}

void add_constant(const Modulus &m, size_t n, const u64 *a, u64 constant, u64 *out) {
    const I q = set(m.q), c = set(constant);
    for (size_t i = 0; i < n; i += 4) store_row(out + i, below(add(load_row(a + i), c), q));
}

// Integers below 2^52 to doubles and residues back, for primes below 2^50.
struct NarrowRow {
    I q_integer;
    V q, one_over_q, two52;
    I two52_bits;
    explicit NarrowRow(const Modulus &m)
        : q_integer(set(m.q)), q(_mm256_set1_pd(double(m.q))),
          one_over_q(_mm256_set1_pd(1.0 / double(m.q))), two52(_mm256_set1_pd(4503599627370496.0)),
          two52_bits(_mm256_castpd_si256(two52)) {}
    TACIT_INLINE V to_double(I x) const {
        return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(x, two52_bits)), two52);
    }
    // |x| < q, an integer, to [0, q).
    TACIT_INLINE I residue(V x) const {
        const V positive = _mm256_blendv_pd(x, _mm256_add_pd(x, q), x);
        const I bits = _mm256_castpd_si256(_mm256_add_pd(positive, two52));
        return _mm256_xor_si256(bits, two52_bits);
    }
    // |x| <= 2^52 to [0, q). The quotient is off by at most 1/q beside its rounding, so at most
    // q/2 + 1 is left: an integer below 2^53, so the subtraction is exact.
    TACIT_INLINE I reduce(V x) const {
        return residue(_mm256_fnmadd_pd(round_nearest(_mm256_mul_pd(x, one_over_q)), q, x));
    }
};

// A constant factor in double precision.
struct DoubleFactor {
    V w, over_q;
    DoubleFactor(u64 factor, u64 q)
        : w(_mm256_set1_pd(centred(factor, q))),
          over_q(_mm256_set1_pd(centred(factor, q) / double(q))) {}
    TACIT_INLINE V times(V x, V q) const { return mul_double(x, w, over_q, q); }
};

struct NarrowScale {
    NarrowRow row;
    DoubleFactor factor;
    NarrowScale(const Modulus &m, const Factor &w) : row(m), factor(w.w, m.q) {}
    TACIT_INLINE I operator()(I x) const {  // x < 2q < 2^51
        return row.residue(factor.times(row.to_double(x), row.q));
    }
};

struct WideScale {
    Wide m;
    I w, companion;
    WideScale(const Modulus &x, const Factor &f) : m(x), w(set(f.w)), companion(set(f.w64)) {}
    TACIT_INLINE I operator()(I x) const { return m.reduce_mul(m.mul(x, w, companion)); }
};

template <class Scale, bool Minus, bool Plus>
void scale_rows(const Modulus &m, size_t n, const u64 *a, const u64 *minus, const u64 *plus,
                const Factor &factor, u64 *out) {
    const Scale times(m, factor);
    const I q = set(m.q);
    for (size_t i = 0; i < n; i += 4) {
        I x = load_row(a + i);
        if (Minus) x = sub(add(x, q), load_row(minus + i));  // < 2q
        x = times(x);
        if (Plus) x = below(add(x, load_row(plus + i)), q);
        store_row(out + i, x);
    }
}

template <class Scale>
void scale(const Modulus &m, size_t n, const u64 *a, const u64 *minus, const u64 *plus,
           const Factor &w, u64 *out) {
    if (minus && plus) return scale_rows<Scale, true, true>(m, n, a, minus, plus, w, out);
    if (minus) return scale_rows<Scale, true, false>(m, n, a, minus, plus, w, out);
    if (plus) return scale_rows<Scale, false, true>(m, n, a, minus, plus, w, out);
    scale_rows<Scale, false, false>(m, n, a, minus, plus, w, out);
}

// Residues of `from`, centred, modulo a narrow prime: x = high 2^30 + low < 2^60.
void centre_narrow(const Modulus &from, const Modulus &to, size_t n, const u64 *a, u64 *out) {
    const NarrowRow row(to);
    const DoubleFactor two30(to.two30.w, to.q);
    const I half = set(from.q >> 1), low_bits = set(kHalf);
    const V shift = _mm256_set1_pd(double(from.q % to.q));
    for (size_t i = 0; i < n; i += 4) {
        const I x = load_row(a + i);
        const V high = row.to_double(_mm256_srli_epi64(x, 30));
        const V low = row.to_double(_mm256_and_si256(x, low_bits));
        const V above = _mm256_castsi256_pd(_mm256_cmpgt_epi64(x, half));
        const V r = _mm256_add_pd(two30.times(high, row.q), low);
        store_row(out + i, row.reduce(_mm256_sub_pd(r, _mm256_and_pd(above, shift))));
    }
}

void centre_wide(const Modulus &from, const Modulus &to, size_t n, const u64 *a, u64 *out) {
    const Wide m(to);
    const I half = set(from.q >> 1), one = set(1), companion = set(to.one.w64);
    const I shift = set(to.q - from.q % to.q);  // -from mod to, 1 .. to
    for (size_t i = 0; i < n; i += 4) {
        const I x = load_row(a + i);
        const I r = m.reduce_mul(m.mul(x, one, companion));
        const I above = _mm256_cmpgt_epi64(x, half);
        store_row(out + i, below(add(r, _mm256_and_si256(above, shift)), m.q));
    }
}

// An order of eight positions: 32-bit indices into either half, and where the upper is meant.
struct Order {
    I index[2], upper[2];
};

Order make_order(const u64 positions[8]) {
    Order order;
    for (int part = 0; part < 2; ++part) {
        alignas(32) u64 index[4], upper[4];
        for (int k = 0; k < 4; ++k) {
            const u64 position = positions[4 * part + k];
            index[k] = 2 * (position & 3) | (2 * (position & 3) + 1) << 32;
            upper[k] = position & 4 ? ~u64(0) : 0;
        }
        order.index[part] = load_row(index);
        order.upper[part] = load_row(upper);
    }
    return order;
}

template <bool Plus, bool Accumulate>
void permute_rows(I q, size_t n, const uint32_t *table, const Order *orders, const u64 *a,
                  const u64 *plus, u64 *out) {
    for (size_t block = 0; block < n / 8; ++block) {
        const uint32_t from = table[block] & ~7u;
        const Order &order = orders[table[block] & 7];
        I x[2] = {load_row(a + from), load_row(a + from + 4)};
        if (Plus) {
            x[0] = below(add(x[0], load_row(plus + from)), q);
            x[1] = below(add(x[1], load_row(plus + from + 4)), q);
        }
        for (int part = 0; part < 2; ++part) {
            u64 *target = out + 8 * block + 4 * part;
            const I low = _mm256_permutevar8x32_epi32(x[0], order.index[part]);
            const I high = _mm256_permutevar8x32_epi32(x[1], order.index[part]);
            I moved = _mm256_blendv_epi8(low, high, order.upper[part]);
            if (Accumulate) moved = below(add(moved, load_row(target)), q);
            store_row(target, moved);
        }
    }
}

}  // namespace

void permute_avx2(const Modulus &m, size_t n, const uint32_t *table, const u64 (*positions)[8],
                  const u64 *a, const u64 *plus, bool accumulate, u64 *out) {
    const I q = set(m.q);
    Order orders[8];
    for (int k = 0; k < 8; ++k) orders[k] = make_order(positions[k]);
    if (plus && accumulate) return permute_rows<true, true>(q, n, table, orders, a, plus, out);
    if (plus) return permute_rows<true, false>(q, n, table, orders, a, plus, out);
    if (accumulate) return permute_rows<false, true>(q, n, table, orders, a, plus, out);
    permute_rows<false, false>(q, n, table, orders, a, plus, out);
}

const Kernels kAvx2Kernels = {
    4, encode_root, Ntt<Doubles>::forward, Ntt<Doubles>::inverse, add_rows, subtract_rows,
    scale<NarrowScale>, add_constant, dot_rows<Forwards>, dot_rows<Backwards>, combine_rows,
    centre_narrow};

const Kernels kAvx2WideKernels = {
    4, encode_root_wide, Ntt<Integers>::forward, Ntt<Integers>::inverse, add_rows, subtract_rows,
    scale<WideScale>, add_constant, dot_rows<Forwards>, dot_rows<Backwards>, combine_rows,
    centre_wide};

}  // namespace tacit
