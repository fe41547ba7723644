// Hybrid key switching and rescaling on OpenFHE's rules, row by row.
#include "ring.h"

using namespace tacit;

namespace {

constexpr size_t kPiece = 512;  // coefficients whose sources stay in the first cache
constexpr uint32_t kMostRows = 128;

uint32_t modulus_of(const tacit_basis &basis, uint32_t row) {
    return row < basis.limbs ? row : basis.first_special + row - basis.limbs;
}

uint32_t digits_of(const tacit_basis &basis) {
    return (basis.limbs + basis.alpha - 1) / basis.alpha;
}

bool any_wide(const tacit_ring *ring, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; ++i)
        if (!ring->moduli[i].narrow) return true;
    return false;
}

bool owns(const tacit_basis &basis, uint32_t digit, uint32_t row) {
    return row < basis.limbs && row / basis.alpha == digit;
}

// Call f(start, length) for pieces of the coefficients.
template <class F>
void each_piece(const tacit_ring *ring, const F &f) {
    const size_t length = ring->n < kPiece ? ring->n : kPiece;
    ring->pool->each(static_cast<uint32_t>(ring->n / length),
                     [&](uint32_t i) { f(i * length, length); });
}

// One piece of one digit, in all rows but its own.
void extend_piece(const tacit_ring &ring, const tacit_basis &basis, uint32_t digit, size_t start,
                  size_t length, const u64 *coefficients, u64 *target) {
    const uint32_t first = digit * basis.alpha, left = basis.limbs - first;
    const uint32_t count = left < basis.alpha ? left : basis.alpha;
    const uint32_t rows = basis.limbs + basis.specials;
    const bool wide = any_wide(&ring, first, count);
    const u64 *sources[kMostRows];
    for (uint32_t t = 0; t < count; ++t)
        sources[t] = coefficients + (first + t) * ring.n + start;
    for (uint32_t row = 0; row < rows; ++row) {
        if (owns(basis, digit, row)) continue;
        const Modulus &m = ring.moduli[modulus_of(basis, row)];
        u64 weights[kMostRows];
        for (uint32_t t = 0; t < count; ++t)
            weights[t] = basis.up_factor[size_t(first + t) * rows + row];
        m.kernels->combine(m, length, count, sources, weights, wide,
                           target + row * ring.n + start);
    }
}

// One row of both halves of the sum over digits of digit times key.
void product_row(const tacit_ring &ring, const tacit_basis &basis, uint32_t row, const u64 *a,
                 const u64 *digits, const u64 *key, uint32_t dnum, u64 *out) {
    const size_t n = ring.n;
    const uint32_t rows = basis.limbs + basis.specials;
    const uint32_t key_rows = basis.first_special + basis.specials;
    const uint32_t count = digits_of(basis), index = modulus_of(basis, row);
    const Modulus &m = ring.moduli[index];
    const u64 *x[kMostRows], *y[kMostRows];
    for (uint32_t d = 0; d < count; ++d)
        x[d] = owns(basis, d, row) ? a + row * n : digits + (size_t(d) * rows + row) * n;
    for (uint32_t part = 0; part < 2; ++part) {
        for (uint32_t d = 0; d < count; ++d)
            y[d] = key + ((size_t(part) * dnum + d) * key_rows + index) * n;
        m.kernels->dot(m, n, count, x, y, out + (size_t(part) * rows + row) * n);
    }
}

}  // namespace

extern "C" {

void tacit_mod_up(const tacit_ring *ring, const tacit_basis *basis, const uint64_t *a,
                  uint64_t *digits, uint64_t *scratch, const uint64_t *key, uint32_t dnum,
                  uint64_t *out) {
    const size_t n = ring->n;
    const uint32_t rows = basis->limbs + basis->specials, count = digits_of(*basis);
    ring->pool->each(basis->limbs, [&](uint32_t row) {
        const Modulus &m = ring->moduli[row];
        u64 *x = scratch + row * n;
        const u64 *source = a + row * n;
        for (size_t i = 0; i < n; ++i) x[i] = source[i];
        m.kernels->inverse(m, x);
        m.kernels->scale(m, n, x, nullptr, nullptr, make_factor(basis->up_inverse[row], m.q), x);
    });
    each_piece(ring, [&](size_t start, size_t length) {
        for (uint32_t digit = 0; digit < count; ++digit)
            extend_piece(*ring, *basis, digit, start, length, scratch,
                         digits + size_t(digit) * rows * n);
    });
    // All digits of a row together: they share its table of roots, and the key's rows follow.
    ring->pool->each(rows, [&](uint32_t row) {
        const Modulus &m = ring->moduli[modulus_of(*basis, row)];
        for (uint32_t digit = 0; digit < count; ++digit)
            if (!owns(*basis, digit, row))
                m.kernels->forward(m, digits + (size_t(digit) * rows + row) * n);
        if (key) product_row(*ring, *basis, row, a, digits, key, dnum, out);
    });
}

void tacit_key_product(const tacit_ring *ring, const tacit_basis *basis, const uint64_t *a,
                       const uint64_t *digits, const uint64_t *key, uint32_t dnum, uint64_t *out) {
    ring->pool->each(basis->limbs + basis->specials, [&](uint32_t row) {
        product_row(*ring, *basis, row, a, digits, key, dnum, out);
    });
}

void tacit_mod_down(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                    uint64_t *x, const uint64_t *const *plus, uint64_t *out, uint64_t *scratch) {
    const size_t n = ring->n;
    const uint32_t limbs = basis->limbs, specials = basis->specials, rows = limbs + specials;
    ring->pool->each(specials, [&](uint32_t k) {
        const Modulus &m = ring->moduli[basis->first_special + k];
        const Factor factor = make_factor(basis->down_inverse[k], m.q);
        for (uint32_t block = 0; block < blocks; ++block) {
            u64 *row = x + (size_t(block) * rows + limbs + k) * n;
            m.kernels->inverse(m, row);
            m.kernels->scale(m, n, row, nullptr, nullptr, factor, row);
        }
    });
    const bool wide = any_wide(ring, basis->first_special, specials);
    each_piece(ring, [&](size_t start, size_t length) {
        for (uint32_t block = 0; block < blocks; ++block) {
            const u64 *sources[kMostRows];
            for (uint32_t k = 0; k < specials; ++k)
                sources[k] = x + (size_t(block) * rows + limbs + k) * n + start;
            for (uint32_t row = 0; row < limbs; ++row) {
                const Modulus &m = ring->moduli[row];
                u64 weights[kMostRows];
                for (uint32_t k = 0; k < specials; ++k)
                    weights[k] = basis->down_factor[size_t(k) * limbs + row];
                m.kernels->combine(m, length, specials, sources, weights, wide,
                                   scratch + (size_t(block) * limbs + row) * n + start);
            }
        }
    });
    ring->pool->each(limbs, [&](uint32_t row) {
        const Modulus &m = ring->moduli[row];
        const Factor factor = make_factor(basis->p_inverse[row], m.q);
        for (uint32_t block = 0; block < blocks; ++block) {
            const size_t at = (size_t(block) * limbs + row) * n;
            m.kernels->forward(m, scratch + at);
            m.kernels->scale(m, n, x + (size_t(block) * rows + row) * n, scratch + at,
                             plus[block] ? plus[block] + row * n : nullptr, factor, out + at);
        }
    });
}

void tacit_rescale(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                   const uint64_t *x, uint64_t *out, uint64_t *scratch) {
    const size_t n = ring->n;
    const uint32_t limbs = basis->limbs, left = limbs - 1;
    const Modulus &last = ring->moduli[left];
    ring->pool->each(blocks, [&](uint32_t block) {
        const u64 *source = x + (size_t(block) * limbs + left) * n;
        u64 *row = scratch + block * n;
        for (size_t i = 0; i < n; ++i) row[i] = source[i];
        last.kernels->inverse(last, row);
    });
    ring->pool->each(left, [&](uint32_t row) {
        const Modulus &m = ring->moduli[row];
        const Factor factor = make_factor(basis->last_inverse[row], m.q);
        for (uint32_t block = 0; block < blocks; ++block) {
            u64 *target = out + (size_t(block) * left + row) * n;
            m.kernels->centre(last, m, n, scratch + block * n, target);
            m.kernels->forward(m, target);
            m.kernels->scale(m, n, x + (size_t(block) * limbs + row) * n, target, nullptr, factor,
                             target);
        }
    });
}

}  // extern "C"
