// Real coefficients to residues.
#include <cmath>

#include "ring.h"

using namespace tacit;

namespace {

constexpr double kWord = 9223372036854775808.0;  // 2^63

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

}  // namespace

extern "C" int tacit_encode(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                            const double *coefficients, double scale, uint64_t *out) {
    for (size_t i = 0; i < ring->n; ++i)
        if (!std::isfinite(coefficients[i] * scale)) return 1;
    ring->pool->each(rows, [&](uint32_t row) {
        const Modulus &m = ring->modulus(mods, row);
        u64 *target = out + row * ring->n;
        for (size_t i = 0; i < ring->n; ++i)
            target[i] = residue(std::nearbyint(coefficients[i] * scale), m);
        m.kernels->forward(m, target);
    });
    return 0;
}
