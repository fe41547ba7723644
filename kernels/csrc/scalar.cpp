// The plain path: 64-bit integers, no vectors (Harvey 2014). Any processor, any prime below 2^60.
//
// Bounds: mul_lazy gives [0, 2q); values between layers are below 4q < 2^62, inverse: below 2q.
#include "scalar_rows.h"

namespace tacit {
namespace {

struct Plain {
    using V = u64;
    static constexpr int lanes = 1;
    static constexpr int max_radix_log = 3;
    u64 q, q2;
    Factor n_inverse;
    explicit Plain(const Modulus &m) : q(m.q), q2(2 * m.q), n_inverse(m.n_inverse) {}

    static V broadcast(u64 x) { return x; }
    static V load_root(const u64 *p) { return *p; }
    static V load_in(const u64 *p) { return *p; }
    static V load(const u64 *p) { return *p; }
    static void store(u64 *p, V v) { *p = v; }
    void store_out(u64 *p, V v) const { *p = below_q(below_q(v, q2), q); }
    static void transpose(V *) {}
    static void settle(V *) {}

    TACIT_INLINE void ct(V &x, V &y, V w, V companion) const {
        const V t = mul_lazy(y, w, companion, q);  // < 2q
        const V u = below_q(x, q2);                // < 2q
        x = u + t;                                 // < 4q
        y = u + q2 - t;                            // < 4q
    }
    TACIT_INLINE void gs(V &x, V &y, V w, V companion) const {
        const V difference = x + q2 - y;           // < 4q
        x = below_q(x + y, q2);                    // < 2q
        y = mul_lazy(difference, w, companion, q);
    }
    TACIT_INLINE void gs_last(V &x, V &y, V w, V companion) const {
        const V difference = x + q2 - y;
        x = mul_lazy(x + y, n_inverse.w, n_inverse.w64, q);
        y = mul_lazy(difference, w, companion, q);
    }
};

void encode_root(const Modulus &m, u64 w, u64 out[2]) {
    out[0] = w;
    out[1] = static_cast<u64>((u128(w) << 64) / m.q);
}

}  // namespace

void permute_scalar(const Modulus &m, size_t n, const uint32_t *table, const u64 (*orders)[8],
                    const u64 *a, const u64 *plus, bool accumulate, u64 *out) {
    for (size_t block = 0; block < n / 8; ++block) {
        const uint32_t from = table[block] & ~7u;
        const u64 *order = orders[table[block] & 7];
        for (size_t k = 0; k < 8; ++k) {
            u64 x = a[from + order[k]];
            if (plus) x = below_q(x + plus[from + order[k]], m.q);
            if (accumulate) x = below_q(x + out[8 * block + k], m.q);
            out[8 * block + k] = x;
        }
    }
}

const Kernels kScalarKernels = {1, encode_root, Ntt<Plain>::forward, Ntt<Plain>::inverse,
                                add_rows_scalar, subtract_rows_scalar, scale_scalar,
                                add_constant_scalar, dot_scalar<>, dot_scalar<true>, combine_scalar,
                                centre_scalar};

}  // namespace tacit
