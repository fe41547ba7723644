// Hybrid key switching and rescaling on OpenFHE's rules, row by row.
#include <algorithm>

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

// Call f(start, length) for pieces of the coefficients of all entries of a batch.
template <class F>
void each_piece(const tacit_ring *ring, uint32_t batch, const F &f) {
    const size_t length = ring->n < kPiece ? ring->n : kPiece;
    ring->pool->each(static_cast<uint32_t>(batch * (ring->n / length)),
                     [&](uint32_t i) { f(i * length, length); });
}

// One piece of one digit, in all rows but its own; rows are `stride` words long.
void extend_piece(const tacit_ring &ring, const tacit_basis &basis, uint32_t digit, size_t stride,
                  size_t start, size_t length, const u64 *coefficients, u64 *target) {
    const uint32_t first = digit * basis.alpha, left = basis.limbs - first;
    const uint32_t count = left < basis.alpha ? left : basis.alpha;
    const uint32_t rows = basis.limbs + basis.specials;
    const bool wide = any_wide(&ring, first, count);
    const u64 *sources[kMostRows];
    for (uint32_t t = 0; t < count; ++t)
        sources[t] = coefficients + (first + t) * stride + start;
    for (uint32_t row = 0; row < rows; ++row) {
        if (owns(basis, digit, row)) continue;
        const Modulus &m = ring.moduli[modulus_of(basis, row)];
        u64 weights[kMostRows];
        for (uint32_t t = 0; t < count; ++t)
            weights[t] = basis.up_factor[size_t(first + t) * rows + row];
        m.kernels->combine(m, length, count, sources, weights, wide,
                           target + row * stride + start);
    }
}

// One row of both halves of the sum over digits of digit times key, piece by piece, so that the
// key's piece is read once for neighbours that share it, and the digits' once for both halves.
void product_row(const tacit_ring &ring, const tacit_basis &basis, uint32_t batch, uint32_t row,
                 const u64 *a, const u64 *digits, const u64 *const *keys, uint32_t dnum,
                 uint32_t key_limbs, u64 *out) {
    const size_t n = ring.n, stride = batch * n, piece = n < kPiece ? n : kPiece;
    const uint32_t rows = basis.limbs + basis.specials;
    const uint32_t key_rows = key_limbs + basis.specials;
    const uint32_t key_row = row < basis.limbs ? row : key_limbs + row - basis.limbs;
    const uint32_t count = digits_of(basis);
    const Modulus &m = ring.moduli[modulus_of(basis, row)];
    const u64 *x[kMostRows], *y[kMostRows];
    for (size_t start = 0; start < n; start += piece)
        for (uint32_t entry = 0; entry < batch; ++entry) {
            const size_t at = row * stride + entry * n + start;
            for (uint32_t d = 0; d < count; ++d)
                x[d] = owns(basis, d, row) ? a + at : digits + size_t(d) * rows * stride + at;
            for (uint32_t part = 0; part < 2; ++part) {
                for (uint32_t d = 0; d < count; ++d)
                    y[d] = keys[entry] + ((size_t(part) * dnum + d) * key_rows + key_row) * n + start;
                m.kernels->dot(m, piece, count, x, y, out + size_t(part) * rows * stride + at);
            }
        }
}

}  // namespace

extern "C" {

void tacit_mod_up(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                  const uint64_t *a, uint64_t *digits, uint64_t *scratch,
                  const uint64_t *const *keys, uint32_t dnum, uint32_t key_limbs,
                  uint64_t *out) {
    const size_t n = ring->n, stride = batch * n;
    const uint32_t rows = basis->limbs + basis->specials, count = digits_of(*basis);
    ring->pool->each(basis->limbs * batch, [&](uint32_t i) {
        const uint32_t row = i / batch;
        const Modulus &m = ring->moduli[row];
        u64 *x = scratch + i * n;
        std::copy_n(a + i * n, n, x);
        m.kernels->inverse(m, x);
        m.kernels->scale(m, n, x, nullptr, nullptr, make_factor(basis->up_inverse[row], m.q), x);
    });
    each_piece(ring, batch, [&](size_t start, size_t length) {
        for (uint32_t digit = 0; digit < count; ++digit)
            extend_piece(*ring, *basis, digit, stride, start, length, scratch,
                         digits + size_t(digit) * rows * stride);
    });
    // All digits of a row together: they share its table of roots, and the key's rows follow.
    ring->pool->each(rows, [&](uint32_t row) {
        const Modulus &m = ring->moduli[modulus_of(*basis, row)];
        for (uint32_t digit = 0; digit < count; ++digit) {
            if (owns(*basis, digit, row)) continue;
            u64 *x = digits + (size_t(digit) * rows + row) * stride;
            for (uint32_t entry = 0; entry < batch; ++entry) m.kernels->forward(m, x + entry * n);
        }
        if (keys) product_row(*ring, *basis, batch, row, a, digits, keys, dnum, key_limbs, out);
    });
}

void tacit_key_product(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                       const uint64_t *a, const uint64_t *digits, const uint64_t *const *keys,
                       uint32_t dnum, uint32_t key_limbs, uint64_t *out) {
    ring->pool->each(basis->limbs + basis->specials, [&](uint32_t row) {
        product_row(*ring, *basis, batch, row, a, digits, keys, dnum, key_limbs, out);
    });
}

void tacit_mod_down(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                    uint32_t batch, uint64_t *x, const uint64_t *const *plus,
                    const uint64_t *shared, uint64_t *out) {
    const size_t n = ring->n, stride = batch * n;
    const uint32_t limbs = basis->limbs, specials = basis->specials, rows = limbs + specials;
    ring->pool->each(specials * blocks * batch, [&](uint32_t i) {
        const uint32_t k = i / (blocks * batch), block = i / batch % blocks, entry = i % batch;
        const Modulus &m = ring->moduli[basis->first_special + k];
        u64 *row = x + (size_t(block) * rows + limbs + k) * stride + entry * n;
        m.kernels->inverse(m, row);
        const Factor factor = make_factor(basis->down_inverse[k], m.q);
        m.kernels->scale(m, n, row, nullptr, nullptr, factor, row);
    });
    const bool wide = any_wide(ring, basis->first_special, specials);
    // A row at a time, in its place in the result, so that it stays in cache to the end.
    ring->pool->each(limbs * blocks * batch, [&](uint32_t i) {
        const uint32_t row = i / (blocks * batch), block = i / batch % blocks, entry = i % batch;
        const Modulus &m = ring->moduli[row];
        const size_t inside = row * stride + entry * n;
        const u64 *all = shared ? shared + row * n : nullptr;
        const u64 *own = plus[block] ? plus[block] + inside : all;
        const u64 *from = x + size_t(block) * rows * stride + inside;
        u64 *target = out + size_t(block) * limbs * stride + inside;
        const u64 *sources[kMostRows];
        u64 weights[kMostRows];
        for (uint32_t k = 0; k < specials; ++k) {
            sources[k] = x + (size_t(block) * rows + limbs + k) * stride + entry * n;
            weights[k] = basis->down_factor[size_t(k) * limbs + row];
        }
        m.kernels->combine(m, n, specials, sources, weights, wide, target);
        m.kernels->forward(m, target);
        m.kernels->scale(m, n, from, target, own, make_factor(basis->p_inverse[row], m.q), target);
        if (all && own != all) m.kernels->add(m, n, target, all, target);
    });
}

void tacit_rescale(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                   uint32_t batch, const uint64_t *x, uint64_t *out, uint64_t *scratch) {
    const size_t n = ring->n, stride = batch * n;
    const uint32_t limbs = basis->limbs, left = limbs - 1;
    const Modulus &last = ring->moduli[left];
    ring->pool->each(blocks * batch, [&](uint32_t i) {
        const uint32_t block = i / batch, entry = i % batch;
        u64 *row = scratch + i * n;
        std::copy_n(x + (size_t(block) * limbs + left) * stride + entry * n, n, row);
        last.kernels->inverse(last, row);
    });
    ring->pool->each(left * blocks * batch, [&](uint32_t i) {
        const uint32_t row = i / (blocks * batch), block = i / batch % blocks, entry = i % batch;
        const Modulus &m = ring->moduli[row];
        const size_t inside = row * stride + entry * n;
        u64 *target = out + size_t(block) * left * stride + inside;
        m.kernels->centre(last, m, n, scratch + (size_t(block) * batch + entry) * n, target);
        m.kernels->forward(m, target);
        m.kernels->scale(m, n, x + size_t(block) * limbs * stride + inside, target, nullptr,
                         make_factor(basis->last_inverse[row], m.q), target);
    });
}

}  // extern "C"
