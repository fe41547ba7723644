// AVX-512 kernels; the arithmetic and its bounds are in avx512_arithmetic.h.
#include "avx512_sums.h"

namespace tacit {
namespace {

void forward_narrow(const Modulus &m, u64 *x) {
    if (m.q >> kSlimBits) return Ntt<Arithmetic<Narrow>>::forward(m, x);
    Ntt<Slim>::forward(m, x);
}

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
    8, encode_root_narrow, forward_narrow, Ntt<Arithmetic<Narrow>>::inverse,
    add_rows, subtract_rows, scale<Narrow>, add_constant,
    dot_narrow<Forwards>, dot_narrow<Backwards>, combine_narrow, centre<Narrow>};

const Kernels kAvx512WideKernels = {
    8, encode_root_wide, Ntt<Arithmetic<Wide>>::forward, Ntt<Arithmetic<Wide>>::inverse, add_rows,
    subtract_rows, scale<Wide>, add_constant, dot_wide<Forwards>, dot_wide<Backwards>, combine_wide,
    centre<Wide>};

}  // namespace tacit
