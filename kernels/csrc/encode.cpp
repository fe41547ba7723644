// Real coefficients to residues.
#include <cmath>

#include "ring.h"

using namespace tacit;

namespace {

constexpr double kWord = 9223372036854775808.0;   // 2^63
constexpr double kShift = 6755399441055744.0;     // 3 2^51: adding it rounds to an integer, for
constexpr double kExact = 1125899906842624.0;     // magnitudes up to 2^50

u64 residue(double value, const Modulus &m) {
    const double magnitude = std::fabs(value);
    u64 r;
    if (magnitude < kWord) {
        r = static_cast<u64>(magnitude) % m.q;
    } else {  // an integer already: mantissa times a power of two
        int exponent;
        const u64 mantissa = static_cast<u64>(std::ldexp(std::frexp(magnitude, &exponent), 53));
        r = mantissa % m.q;
        for (int shift = exponent - 53; shift > 0; shift -= 30)
            r = mul_mod(r, u64(1) << (shift < 30 ? shift : 30), m.q);
    }
    return value < 0 && r ? m.q - r : r;
}

// Integers to the nearest, ties to even, by the bits of the shifted number; |x| <= 2^50.
void round_all(size_t n, const double *x, double scale, int64_t *out) {
    for (size_t i = 0; i < n; ++i) {
        const double shifted = x[i] * scale + kShift;
        int64_t bits;
        __builtin_memcpy(&bits, &shifted, 8);
        out[i] = bits - 0x4338000000000000;  // the bits of kShift
    }
}

}  // namespace

extern "C" int tacit_encode(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                            const double *coefficients, double scale, uint64_t *out) {
    const size_t n = ring->n;
    double largest = 0.0, any = 0.0;
    for (size_t i = 0; i < n; ++i) {
        const double x = std::fabs(coefficients[i] * scale);
        largest = x > largest ? x : largest;
        any += x;  // not finite if one is not
    }
    if (!std::isfinite(any)) {
        for (size_t i = 0; i < n; ++i)
            if (!std::isfinite(coefficients[i] * scale)) return 1;
    }
    // The first row holds the integers until all others are made.
    int64_t *integers = reinterpret_cast<int64_t *>(out);
    const bool small = largest <= kExact;
    if (small) round_all(n, coefficients, scale, integers);
    const auto fill = [&](uint32_t row) {
        const Modulus &m = ring->modulus(mods, row);
        u64 *target = out + row * n;
        const auto q = static_cast<int64_t>(m.q);
        if (small && largest <= static_cast<double>(m.q - 1)) {
            for (size_t i = 0; i < n; ++i)
                target[i] = static_cast<u64>(integers[i] + (q & (integers[i] >> 63)));
        } else if (small) {
            for (size_t i = 0; i < n; ++i) {
                const int64_t r = integers[i] % q;
                target[i] = static_cast<u64>(r + (q & (r >> 63)));
            }
        } else {
            for (size_t i = 0; i < n; ++i)
                target[i] = residue(std::nearbyint(coefficients[i] * scale), m);
        }
        m.kernels->forward(m, target);
    };
    ring->pool->each(rows - 1, (Pool::kTransform + 2) * n, [&](uint32_t i) { fill(i + 1); });
    fill(0);
    return 0;
}
