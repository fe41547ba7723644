// AVX2 + FMA kernels for primes below 2^50: the NTT in double precision, the rest in integers.
//
// A residue is a double that holds an integer. docs/engine.md proves that every step is exact:
// |x| <= q/2 after `settle`, then at most two layers, each of which adds less than 0.76 q
// (forward) or doubles (inverse: 0.5 q, 1 q, 2 q). Roots are centred, |w| <= q/2, and their
// companion is w / q rounded.
#include <immintrin.h>

#include <cstring>

#include "scalar_rows.h"

namespace tacit {
namespace {

using V = __m256d;

TACIT_INLINE V round_nearest(V x) {
    return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// x w - round(x w/q) q: exact, see docs/engine.md.
TACIT_INLINE V mul_double(V x, V w, V w_over_q, V q) {
    const V quotient = round_nearest(_mm256_mul_pd(x, w_over_q));
    const V high = _mm256_mul_pd(x, w);
    const V low = _mm256_fmsub_pd(x, w, high);
    return _mm256_add_pd(_mm256_fnmadd_pd(quotient, q, high), low);
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
        const double centred = m.n_inverse.w > m.q / 2 ? -double(m.q - m.n_inverse.w)
                                                       : double(m.n_inverse.w);
        n_inverse = _mm256_set1_pd(centred);
        n_companion = _mm256_set1_pd(centred / double(m.q));
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
    const double centred = w > m.q / 2 ? -double(m.q - w) : double(w);
    const double companion = centred / double(m.q);
    std::memcpy(out, &centred, sizeof centred);
    std::memcpy(out + 1, &companion, sizeof companion);
}

}  // namespace

const Kernels kAvx2Kernels = {4, encode_root, Ntt<Doubles>::forward, Ntt<Doubles>::inverse,
                              add_rows_scalar, subtract_rows_scalar, scale_scalar,
                              add_constant_scalar, dot_scalar, combine_scalar, centre_scalar};

}  // namespace tacit
