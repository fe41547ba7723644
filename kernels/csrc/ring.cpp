// Rings: choice of the path, tables of roots, and the operations row by row.
#include "ring.h"

using namespace tacit;

namespace {

constexpr size_t kPiece = 512;  // coefficients whose sources stay in the first cache

u64 power_mod(u64 base, u64 exponent, u64 q) {
    u64 result = 1 % q;
    for (; exponent; exponent >>= 1, base = mul_mod(base, base, q))
        if (exponent & 1) result = mul_mod(result, base, q);
    return result;
}

size_t reverse_bits(size_t x, int bits) {
    size_t result = 0;
    for (int i = 0; i < bits; ++i, x >>= 1) result = result << 1 | (x & 1);
    return result;
}

std::vector<u64> bit_reversed_powers(u64 root, int log_n, u64 q) {
    std::vector<u64> powers(size_t(1) << log_n);
    u64 power = 1;
    for (size_t i = 0; i < powers.size(); ++i, power = mul_mod(power, root, q))
        powers[reverse_bits(i, log_n)] = power;
    return powers;
}

// The first N / lanes powers as pairs (w, companion); the rest as the register blocks read them:
// per block of lanes^2 values and root of its lower layers, `lanes` words w, then companions.
void build_tables(tacit_ring &ring, Modulus &m, const std::vector<u64> &powers, u64 *&pairs,
                  u64 *&base) {
    const size_t lanes = static_cast<size_t>(m.kernels->lanes), n = powers.size();
    pairs = ring.tables.allocate(2 * n / lanes);
    for (size_t i = 0; i < n / lanes; ++i) m.kernels->encode_root(m, powers[i], pairs + 2 * i);
    const size_t blocks = n / lanes / lanes;
    base = ring.tables.allocate(blocks * 2 * lanes * (lanes - 1) + 1);
    u64 *out = base;
    for (size_t block = 0; block < blocks; ++block)
        for (size_t width = 1; width < lanes; width *= 2)
            for (size_t k = 0; k < width; ++k, out += 2 * lanes)
                for (size_t lane = 0; lane < lanes; ++lane) {
                    u64 pair[2];
                    const size_t at = ((blocks + block) * lanes + lane) * width + k;
                    m.kernels->encode_root(m, powers[at], pair);
                    out[lane] = pair[0];
                    out[lanes + lane] = pair[1];
                }
}

void build_modulus(tacit_ring &ring, Modulus &m, u64 psi) {
    const u64 n_inverse = power_mod(u64(1) << ring.log_n, m.q - 2, m.q);
    m.n_inverse = make_factor(n_inverse, m.q);
    m.one = make_factor(1, m.q);
    m.two30 = make_factor((u64(1) << 30) % m.q, m.q);
    m.two52 = make_factor((u64(1) << 52) % m.q, m.q);
    m.two60 = make_factor((u64(1) << 60) % m.q, m.q);
    m.two64 = make_factor(mul_mod((u64(1) << 32) % m.q, (u64(1) << 32) % m.q, m.q), m.q);
    const int log_n = static_cast<int>(ring.log_n);
    build_tables(ring, m, bit_reversed_powers(psi, log_n, m.q), m.forward, m.forward_base);
    std::vector<u64> powers = bit_reversed_powers(power_mod(psi, m.q - 2, m.q), log_n, m.q);
    powers[1] = mul_mod(powers[1], n_inverse, m.q);  // the last layer's, see ntt_core.h
    build_tables(ring, m, powers, m.inverse, m.inverse_base);
}

const Kernels *choose_kernels(int path, uint32_t log_n, bool narrow) {
    const Kernels *kernels = &kScalarKernels;
#ifdef TACIT_X86
    if (path == TACIT_AVX512) kernels = narrow ? &kAvx512NarrowKernels : &kAvx512WideKernels;
    if (path == TACIT_AVX2) kernels = narrow ? &kAvx2Kernels : &kAvx2WideKernels;
#endif
    const auto lanes = static_cast<size_t>(kernels->lanes);
    return (size_t(1) << log_n) < 2 * lanes * lanes ? &kScalarKernels : kernels;
}

bool valid_modulus(uint32_t log_n, u64 q, u64 psi) {
    if (q < 3 || q >> 60 || (q - 1) % (u64(2) << log_n) || psi >= q) return false;
    return power_mod(psi, u64(1) << log_n, q) == q - 1;
}

tacit_ring *make_ring(uint32_t log_n, uint32_t count, const u64 *moduli, const u64 *psi, int path,
                      uint32_t threads) {
    std::unique_ptr<tacit_ring> ring(new tacit_ring);
    ring->log_n = log_n;
    ring->n = size_t(1) << log_n;
    ring->moduli.resize(count);
    ring->permute = permute_scalar;
#ifdef TACIT_X86
    if (path == TACIT_AVX512) ring->permute = permute_avx512;
    if (path == TACIT_AVX2) ring->permute = permute_avx2;
#endif
    for (uint32_t i = 0; i < count; ++i) {
        if (!valid_modulus(log_n, moduli[i], psi[i])) return nullptr;
        Modulus &m = ring->moduli[i];
        m.q = moduli[i];
        m.log_n = log_n;
        m.narrow = m.q >> kNarrowBits == 0;
        m.kernels = choose_kernels(path, log_n, m.narrow);
        build_modulus(*ring, m, psi[i]);
    }
    ring->pool.reset(new Pool(threads));
    return ring.release();
}

// Call f(modulus, row, first coefficient, length) for each row and all entries of its batch; `cost`
// is that of one coefficient, see Pool.
template <class F>
void each_row(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
              const F &f, size_t cost = 1) {
    const size_t length = batch * ring->n;
    ring->pool->each(rows, cost * length, [&](uint32_t row) {
        f(ring->modulus(mods, row), row, row * length, length);
    });
}

// Call f(modulus, row, first coefficient) for each entry of each row: all of a row, then the next.
template <class F>
void each_entry(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                const F &f, size_t cost = 1) {
    ring->pool->each(rows * batch, cost * ring->n, [&](uint32_t i) {
        f(ring->modulus(mods, i / batch), i / batch, i * ring->n);
    });
}

// One piece of sum_t a[t] b[t], at most kPiece long; mirrored: with that of b[t] backwards.
void dot_piece(const Modulus &m, size_t length, uint32_t terms, const u64 *const *a, size_t a_at,
               const u64 *const *b, size_t b_at, u64 *out, bool mirrored = false) {
    const auto dot = mirrored ? m.kernels->dot_mirrored : m.kernels->dot;
    constexpr uint32_t most = tacit_ring::kMostTerms;
    const u64 *x[most], *y[most];
    u64 sum[kPiece];
    for (uint32_t first = 0; first < terms; first += most) {
        const uint32_t count = terms - first < most ? terms - first : most;
        for (uint32_t t = 0; t < count; ++t) {
            x[t] = a[first + t] + a_at;
            y[t] = b[first + t] + b_at;
        }
        dot(m, length, count, x, y, first ? sum : out);
        if (first) m.kernels->add(m, length, sum, out, out);
    }
}

}  // namespace

void tacit::galois_orders(u64 element, u64 orders[8][8]) {
    for (size_t shift = 0; shift < 8; ++shift)
        for (size_t k = 0; k < 8; ++k)
            orders[shift][k] = reverse_bits((shift + reverse_bits(k, 3) * element) & 7, 3);
}

extern "C" {

const char *tacit_sources(void) { return TACIT_SOURCES; }

uint32_t tacit_paths(void) {
    uint32_t paths = 1u << TACIT_SCALAR;
#ifdef TACIT_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        paths |= 1u << TACIT_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512ifma"))
        paths |= 1u << TACIT_AVX512;
#endif
    return paths;
}

tacit_ring *tacit_ring_new(uint32_t log_n, uint32_t count, const uint64_t *moduli,
                           const uint64_t *psi, int path, uint32_t threads, int *failure) {
    *failure = TACIT_BAD_ARGUMENTS;
    if (log_n < 3 || log_n > 17 || count < 1 || count > 1024 || threads < 1 || threads > 1024)
        return nullptr;
    if (path < 0 || path > TACIT_AVX512 || !(tacit_paths() >> path & 1)) return nullptr;
    try {
        tacit_ring *ring = make_ring(log_n, count, moduli, psi, path, threads);
        if (ring) *failure = TACIT_NONE;
        return ring;
    } catch (...) {  // std::bad_alloc, or std::system_error from threads
        *failure = TACIT_NO_RESOURCES;
        return nullptr;
    }
}

void tacit_ring_free(tacit_ring *ring) { delete ring; }

void tacit_ntt_forward(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                       uint64_t *x) {
    each_entry(ring, rows, mods, batch,
               [&](const Modulus &m, uint32_t, size_t at) { m.kernels->forward(m, x + at); },
               Pool::kTransform);
}

void tacit_ntt_inverse(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                       uint64_t *x) {
    each_entry(ring, rows, mods, batch,
               [&](const Modulus &m, uint32_t, size_t at) { m.kernels->inverse(m, x + at); },
               Pool::kTransform);
}

void tacit_add(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
               const uint64_t *a, const uint64_t *b, int shared, uint64_t *out) {
    if (shared)
        return each_entry(ring, rows, mods, batch, [&](const Modulus &m, uint32_t row, size_t at) {
            m.kernels->add(m, ring->n, a + at, b + row * ring->n, out + at);
        });
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t, size_t at, size_t length) {
        m.kernels->add(m, length, a + at, b + at, out + at);
    });
}

void tacit_subtract(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                    const uint64_t *a, const uint64_t *b, uint64_t *out) {
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t, size_t at, size_t length) {
        m.kernels->subtract(m, length, a + at, b + at, out + at);
    });
}

void tacit_negate(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                  const uint64_t *a, uint64_t *out) {
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t, size_t at, size_t length) {
        for (size_t i = at; i < at + length; ++i) out[i] = a[i] ? m.q - a[i] : 0;
    });
}

void tacit_scale(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                 const uint64_t *a, const uint64_t *minus, const uint64_t *plus,
                 const uint64_t *constants, uint64_t *out) {
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t row, size_t at, size_t size) {
        m.kernels->scale(m, size, a + at, minus ? minus + at : nullptr,
                         plus ? plus + at : nullptr, make_factor(constants[row], m.q), out + at);
    });
}

void tacit_add_constant(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                        uint32_t batch, const uint64_t *a, const uint64_t *constants,
                        uint64_t *out) {
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t row, size_t at, size_t size) {
        m.kernels->add_constant(m, size, a + at, constants[row], out + at);
    });
}

void tacit_dot(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t terms,
               const uint64_t *const *a, const uint64_t *const *b, uint64_t *out) {
    each_entry(ring, rows, mods, 1, [&](const Modulus &m, uint32_t, size_t at) {
        const size_t piece = ring->n < kPiece ? ring->n : kPiece;
        for (size_t start = at; start < at + ring->n; start += piece)
            dot_piece(m, piece, terms, a, start, b, start, out + start);
    }, terms);
}

void tacit_dot_pairs(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                     uint32_t outputs, const uint32_t *counts, const uint64_t *const *a,
                     const uint64_t *const *b, int halves, uint64_t *const *out) {
    const size_t n = ring->n, kept = halves ? n / 2 : n, piece = kept < kPiece ? kept : kPiece;
    size_t terms = 0;
    for (uint32_t o = 0; o < outputs; ++o) terms += counts[o];
    // A piece of the shared rows stays in the first cache for both components, all entries and, if
    // it stands for its mirror image too, that.
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t row, size_t at, size_t size) {
        const size_t block = rows * size;
        for (size_t start = 0; start < kept; start += piece) {
            size_t first = 0;
            for (uint32_t o = 0; o < outputs; first += counts[o++])
                for (size_t x = at; x < at + size; x += n)
                    for (size_t shift = x; shift <= x + block; shift += block)
                        for (int mirrored = 0; mirrored <= (halves ? 1 : 0); ++mirrored) {
                            const size_t place = shift + (mirrored ? n - piece - start : start);
                            dot_piece(m, piece, counts[o], a + first, place, b + first,
                                      row * kept + start, out[o] + place, mirrored);
                        }
        }
    }, 3 * terms);
}

void tacit_combine(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                   uint32_t outputs, uint32_t terms, const uint64_t *const *a,
                   const uint64_t *weights, int halves, uint64_t *const *out) {
    constexpr uint32_t most = tacit_ring::kMostTerms;
    const size_t n = ring->n, part = halves ? n / 2 : n, piece = part < kPiece ? part : kPiece;
    each_row(ring, rows, mods, batch, [&](const Modulus &m, uint32_t row, size_t at, size_t size) {
        const u64 *x[most];
        u64 sum[kPiece];
        for (size_t start = at; start < at + size; start += piece) {
            const size_t set = halves ? 2 * row + start / part % 2 : row;
            for (uint32_t first = 0; first < terms; first += most) {
                const uint32_t count = terms - first < most ? terms - first : most;
                for (uint32_t t = 0; t < count; ++t) x[t] = a[first + t] + start;
                for (uint32_t o = 0; o < outputs; ++o) {
                    const u64 *w = weights + (set * outputs + o) * terms + first;
                    u64 *target = out[o] + start;
                    m.kernels->combine(m, piece, count, x, w, false, first ? sum : target);
                    if (first) m.kernels->add(m, piece, sum, target, target);
                }
            }
        }
    }, terms);
}

void tacit_tensor(const tacit_ring *ring, uint32_t rows, uint32_t batch, uint32_t terms,
                  const uint64_t *const *a, const uint32_t *rows_of_a, const uint64_t *const *b,
                  const uint32_t *rows_of_b, uint64_t *out) {
    constexpr uint32_t most = tacit_ring::kMostTerms / 2;
    const size_t n = ring->n, stride = batch * n, block = rows * stride;
    const size_t piece = n < kPiece ? n : kPiece;
    each_entry(ring, rows, nullptr, batch, [&](const Modulus &m, uint32_t, size_t at) {
        u64 sum[kPiece];
        for (size_t start = at; start < at + n; start += piece)
            for (uint32_t first = 0; first < terms; first += most) {
                const uint32_t count = terms - first < most ? terms - first : most;
                // a0 .. a1 .. and b1 .. b0 .., so that the middle is one sum of all.
                const u64 *x[2 * most], *y[2 * most];
                for (uint32_t t = 0; t < count; ++t) {
                    x[t] = a[first + t] + start;
                    x[count + t] = x[t] + rows_of_a[first + t] * stride;
                    y[count + t] = b[first + t] + start;
                    y[t] = y[count + t] + rows_of_b[first + t] * stride;
                }
                const auto add_up = [&](uint32_t of, const u64 **left, const u64 **right,
                                        u64 *target) {
                    m.kernels->dot(m, piece, of, left, right, first ? sum : target);
                    if (first) m.kernels->add(m, piece, sum, target, target);
                };
                add_up(count, x, y + count, out + start);
                add_up(2 * count, x, y, out + block + start);
                add_up(count, x + count, y, out + 2 * block + start);
            }
    }, 8 * terms);
}

void tacit_galois_table(uint32_t log_n, uint64_t element, uint32_t *table) {
    const int low = static_cast<int>(log_n) - 3;
    const u64 mask = (u64(1) << log_n) - 1;
    for (size_t block = 0; block < size_t(1) << low; ++block) {
        const u64 exponent = 2 * reverse_bits(block, low) + 1;
        const u64 source = ((exponent * element - 1) >> 1) & mask;
        const size_t from = reverse_bits(source & ((u64(1) << low) - 1), low);
        table[block] = static_cast<uint32_t>(from << 3 | source >> low);
    }
}

void tacit_automorphism(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                        uint32_t batch, const uint32_t *table, uint64_t element,
                        const uint64_t *a, uint32_t plus_rows, const uint64_t *plus,
                        int accumulate, uint64_t *out) {
    u64 orders[8][8];
    galois_orders(element, orders);
    each_entry(ring, rows, mods, batch, [&](const Modulus &m, uint32_t row, size_t at) {
        ring->permute(m, ring->n, table, orders, a + at, row < plus_rows ? plus + at : nullptr,
                      accumulate != 0, out + at);
    });
}

}  // extern "C"
