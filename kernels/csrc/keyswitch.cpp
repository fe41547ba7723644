// Hybrid key switching and rescaling on OpenFHE's rules, row by row.
#include <algorithm>

#include "ring.h"

using namespace tacit;

namespace {

constexpr size_t kPiece = 512;  // coefficients of a sum that stay in the first cache
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

// Digit `digit` in one row that is not its own, NTT form; `target` has one row. The extension of a
// whole row stays in the second cache for its transform.
void extend_row(const tacit_ring &ring, const tacit_basis &basis, uint32_t batch, uint32_t digit,
                uint32_t row, const u64 *coefficients, u64 *target) {
    const uint32_t first = digit * basis.alpha, left = basis.limbs - first;
    const uint32_t count = left < basis.alpha ? left : basis.alpha;
    const uint32_t rows = basis.limbs + basis.specials;
    const bool wide = any_wide(&ring, first, count);
    const size_t n = ring.n, stride = batch * n;
    const Modulus &m = ring.moduli[modulus_of(basis, row)];
    const u64 *sources[kMostRows];
    u64 weights[kMostRows];
    for (uint32_t t = 0; t < count; ++t)
        weights[t] = basis.up_factor[size_t(first + t) * rows + row];
    for (size_t at = 0; at < stride; at += n) {
        for (uint32_t t = 0; t < count; ++t) sources[t] = coefficients + (first + t) * stride + at;
        m.kernels->combine(m, n, count, sources, weights, wide, target + at);
        m.kernels->forward(m, target + at);
    }
}

// Coefficients of each limb times (D / q_i)^-1, to scratch.
void lift_digits(const tacit_ring &ring, const tacit_basis &basis, uint32_t batch, const u64 *a,
                 u64 *scratch) {
    const size_t n = ring.n;
    ring.pool->each(basis.limbs * batch, Pool::kTransform * n, [&](uint32_t i) {
        const uint32_t row = i / batch;
        const Modulus &m = ring.moduli[row];
        u64 *x = scratch + i * n;
        std::copy_n(a + i * n, n, x);
        m.kernels->inverse(m, x);
        m.kernels->scale(m, n, x, nullptr, nullptr, make_factor(basis.up_inverse[row], m.q), x);
    });
}

// Keys of the entries of a batch, and what becomes of their product with digits.
struct Product {
    const tacit_ring &ring;
    const tacit_basis &basis;
    const uint32_t batch, rows;
    const u64 *const *keys;
    const uint32_t dnum, key_limbs;
    const tacit_turn *turn;
    u64 *out;
    u64 orders[8][8];

    Product(const tacit_ring *r, const tacit_basis *b, uint32_t entries, const u64 *const *k,
            uint32_t digits_of_keys, uint32_t limbs_of_keys, const tacit_turn *t, u64 *target)
        : ring(*r), basis(*b), batch(entries), rows(b->limbs + b->specials), keys(k),
          dnum(digits_of_keys), key_limbs(limbs_of_keys), turn(t), out(target) {
        if (turn) galois_orders(turn->element, orders);
    }

    // One row of both halves; `digits` is the row of the first digit, the next one `distance` words
    // on; `sums` has room for two rows.
    void row(uint32_t row, const u64 *a, const u64 *digits, size_t distance, u64 *sums) const {
        const size_t n = ring.n, stride = batch * n, half = size_t(rows) * stride;
        u64 *target = out + row * stride;
        if (!turn) return sum(row, a, digits, distance, target, half);
        sum(row, a, digits, distance, sums, stride);
        const Modulus &m = ring.moduli[modulus_of(basis, row)];
        for (size_t at = 0; at < stride; at += n) {
            const u64 *plus = row < turn->plus_rows ? turn->plus + row * stride + at : nullptr;
            const bool more = turn->accumulate != 0;
            ring.permute(m, n, turn->table, orders, sums + at, plus, more, target + at);
            ring.permute(m, n, turn->table, orders, sums + stride + at, nullptr, more,
                         target + half + at);
        }
    }

  private:
    // Piece by piece, so that the key's piece is read once for neighbours that share it, and the
    // digits' once for both halves.
    void sum(uint32_t row, const u64 *a, const u64 *digits, size_t distance, u64 *target,
             size_t half) const {
        const size_t n = ring.n, piece = n < kPiece ? n : kPiece;
        const uint32_t key_rows = key_limbs + basis.specials, count = digits_of(basis);
        const uint32_t key_row = row < basis.limbs ? row : key_limbs + row - basis.limbs;
        const Modulus &m = ring.moduli[modulus_of(basis, row)];
        const u64 *x[kMostRows], *y[kMostRows];
        for (size_t start = 0; start < n; start += piece)
            for (uint32_t entry = 0; entry < batch; ++entry) {
                const size_t at = entry * n + start;
                for (uint32_t d = 0; d < count; ++d)
                    x[d] = owns(basis, d, row) ? a + row * batch * n + at
                                               : digits + d * distance + at;
                for (uint32_t part = 0; part < 2; ++part) {
                    for (uint32_t d = 0; d < count; ++d)
                        y[d] = keys[entry] +
                               ((size_t(part) * dnum + d) * key_rows + key_row) * n + start;
                    m.kernels->dot(m, piece, count, x, y, target + part * half + at);
                }
            }
    }
};

}  // namespace

extern "C" {

void tacit_mod_up(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                  const uint64_t *a, uint64_t *digits, uint64_t *scratch) {
    const size_t stride = batch * ring->n;
    const uint32_t rows = basis->limbs + basis->specials, count = digits_of(*basis);
    lift_digits(*ring, *basis, batch, a, scratch);
    // All digits of a row together: they share its table of roots.
    ring->pool->each(rows * count, Pool::kTransform * stride, [&](uint32_t i) {
        const uint32_t row = i / count, digit = i % count;
        if (owns(*basis, digit, row)) return;
        extend_row(*ring, *basis, batch, digit, row, scratch,
                   digits + (size_t(digit) * rows + row) * stride);
    });
}

void tacit_key_product(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                       const uint64_t *a, const uint64_t *digits, const uint64_t *const *keys,
                       uint32_t dnum, uint32_t key_limbs, const tacit_turn *turn,
                       uint64_t *scratch, uint64_t *out) {
    const Product product(ring, basis, batch, keys, dnum, key_limbs, turn, out);
    const size_t stride = batch * ring->n;
    const uint32_t rows = product.rows, count = digits_of(*basis);
    ring->pool->each_slot(rows, 3 * count * stride, [&](uint32_t row, uint32_t slot) {
        product.row(row, a, digits + row * stride, rows * stride, scratch + slot * 2 * stride);
    });
}

void tacit_switch(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                  const uint64_t *a, uint64_t *scratch, const uint64_t *const *keys, uint32_t dnum,
                  uint32_t key_limbs, const tacit_turn *turn, uint64_t *out) {
    const Product product(ring, basis, batch, keys, dnum, key_limbs, turn, out);
    const size_t stride = batch * ring->n;
    const uint32_t count = digits_of(*basis);
    lift_digits(*ring, *basis, batch, a, scratch);
    u64 *own = scratch + basis->limbs * stride;
    // Digits of a row are used at once, in memory that serves the next row too.
    const size_t words = (Pool::kTransform + 3) * count * stride;
    ring->pool->each_slot(product.rows, words, [&](uint32_t row, uint32_t slot) {
        u64 *digits = own + slot * (count + 2) * stride;
        for (uint32_t digit = 0; digit < count; ++digit)
            if (!owns(*basis, digit, row))
                extend_row(*ring, *basis, batch, digit, row, scratch, digits + digit * stride);
        product.row(row, a, digits, stride, digits + count * stride);
    });
}

void tacit_extend(const tacit_ring *ring, uint32_t blocks, uint32_t batch, const uint64_t *a,
                  uint32_t source, uint32_t rows, const uint32_t *mods, uint64_t *scratch,
                  uint64_t *out) {
    const size_t n = ring->n, stride = batch * n;
    const Modulus &from = ring->moduli[source];
    ring->pool->each(blocks * batch, Pool::kTransform * n, [&](uint32_t i) {
        std::copy_n(a + i * n, n, scratch + i * n);
        from.kernels->inverse(from, scratch + i * n);
    });
    ring->pool->each(rows * blocks * batch, Pool::kTransform * n, [&](uint32_t i) {
        const uint32_t row = i / (blocks * batch), block = i / batch % blocks, entry = i % batch;
        const Modulus &m = ring->modulus(mods, row);
        u64 *target = out + (size_t(block) * rows + row) * stride + entry * n;
        m.kernels->centre(from, m, n, scratch + block * stride + entry * n, target);
        m.kernels->forward(m, target);
    });
}

void tacit_mod_down(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                    uint32_t batch, uint64_t *x, const uint64_t *const *plus,
                    const uint64_t *shared, uint64_t *out) {
    const size_t n = ring->n, stride = batch * n;
    const uint32_t limbs = basis->limbs, specials = basis->specials, rows = limbs + specials;
    ring->pool->each(specials * blocks * batch, Pool::kTransform * n, [&](uint32_t i) {
        const uint32_t k = i / (blocks * batch), block = i / batch % blocks, entry = i % batch;
        const Modulus &m = ring->moduli[basis->first_special + k];
        u64 *row = x + (size_t(block) * rows + limbs + k) * stride + entry * n;
        m.kernels->inverse(m, row);
        const Factor factor = make_factor(basis->down_inverse[k], m.q);
        m.kernels->scale(m, n, row, nullptr, nullptr, factor, row);
    });
    const bool wide = any_wide(ring, basis->first_special, specials);
    // A row at a time, in its place in the result, so that it stays in cache to the end.
    ring->pool->each(limbs * blocks * batch, (Pool::kTransform + 3) * n, [&](uint32_t i) {
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
    ring->pool->each(blocks * batch, Pool::kTransform * n, [&](uint32_t i) {
        const uint32_t block = i / batch, entry = i % batch;
        u64 *row = scratch + i * n;
        std::copy_n(x + (size_t(block) * limbs + left) * stride + entry * n, n, row);
        last.kernels->inverse(last, row);
    });
    ring->pool->each(left * blocks * batch, (Pool::kTransform + 3) * n, [&](uint32_t i) {
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
