// Runs every function of the C interface on buffers of exactly the promised sizes, on every
// instruction set of this processor, so that the sanitizers see each access.
//
// Arguments: log_n, limbs of Q, special primes, digits, threads, then moduli, then their roots.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "tacit_kernels.h"

using Words = std::vector<uint64_t>;

struct Setting {
    uint32_t log_n, full, specials, dnum, threads;
    Words moduli, roots;
    size_t n() const { return size_t(1) << log_n; }
};

static void expect(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

// Rows of `batch` polynomials, one row per modulus named.
static Words draw(const Setting &s, const std::vector<uint32_t> &mods, uint32_t batch = 1) {
    std::mt19937_64 random(1);
    const size_t length = batch * s.n();
    Words x(mods.size() * length);
    for (size_t i = 0; i < x.size(); ++i) {
        const uint64_t q = s.moduli[mods[i / length]];
        x[i] = i % 5 ? random() % q : q - 1;
    }
    return x;
}

static void check_below(const Setting &s, const std::vector<uint32_t> &mods, const Words &x,
                        uint32_t batch = 1) {
    for (size_t i = 0; i < x.size(); ++i)
        expect(x[i] < s.moduli[mods[i / (batch * s.n())]], "below q");
}

static void run_rows(const Setting &s, const tacit_ring *ring, uint32_t batch) {
    std::vector<uint32_t> mods;
    for (uint32_t i = 0; i < s.moduli.size(); ++i) mods.push_back(i);
    const uint32_t rows = mods.size();
    const Words a = draw(s, mods, batch), shared = draw(s, mods);
    Words x = a, out(a.size()), constants(rows, 1);
    tacit_ntt_forward(ring, rows, mods.data(), batch, x.data());
    check_below(s, mods, x, batch);
    tacit_ntt_inverse(ring, rows, mods.data(), batch, x.data());
    expect(x == a, "round trip");
    tacit_add(ring, rows, mods.data(), batch, a.data(), a.data(), 0, out.data());
    tacit_subtract(ring, rows, mods.data(), batch, out.data(), a.data(), out.data());
    expect(out == a, "a + a - a");
    tacit_add(ring, rows, nullptr, batch, a.data(), shared.data(), 1, out.data());
    check_below(s, mods, out, batch);
    tacit_negate(ring, rows, nullptr, batch, a.data(), out.data());
    tacit_scale(ring, rows, mods.data(), batch, a.data(), a.data(), out.data(), constants.data(),
                x.data());
    expect(x == out, "(a - a) 1 - a");
    tacit_add_constant(ring, rows, nullptr, batch, a.data(), constants.data(), out.data());
    check_below(s, mods, out, batch);
    const std::vector<const uint64_t *> many(70, a.data());
    const Words weights(rows * 2 * 70, 1);
    uint64_t *targets[2] = {out.data(), x.data()};
    tacit_combine(ring, rows, mods.data(), batch, 2, 70, many.data(), weights.data(), 0, targets);
    expect(out == x, "equal weights");
    const Words twice_the_weights(rows * 2 * 2 * 70, 1);
    tacit_combine(ring, rows, mods.data(), batch, 2, 70, many.data(), twice_the_weights.data(), 1,
                  targets);
    expect(out == x, "equal weights in both halves");
    std::vector<uint32_t> table(s.n() / 8);
    tacit_galois_table(s.log_n, 5, table.data());
    tacit_automorphism(ring, rows, mods.data(), batch, table.data(), 5, a.data(), rows - 1,
                       a.data(), 1, out.data());
    check_below(s, mods, out, batch);
    if (batch > 1) return;
    tacit_dot(ring, rows, mods.data(), 70, many.data(), many.data(), out.data());
    check_below(s, mods, out);
    std::vector<double> coefficients(s.n(), 0.5);
    expect(!tacit_encode(ring, rows, mods.data(), coefficients.data(), 1e30, out.data()), "encode");
    check_below(s, mods, out);
    coefficients[1] = 1e300;
    expect(tacit_encode(ring, rows, mods.data(), coefficients.data(), 1e30, out.data()), "infinite");
}

// The rows of a key that ciphertexts of `limbs` limbs read, and no others.
static Words trimmed(const Setting &s, const Words &key, uint32_t limbs, uint32_t digits) {
    Words made;
    for (uint32_t part = 0; part < 2; ++part)
        for (uint32_t d = 0; d < digits; ++d)
            for (uint32_t row = 0; row < s.full + s.specials; ++row) {
                if (row >= limbs && row < s.full) continue;
                const auto from = key.begin() + ((part * s.dnum + d) * (s.full + s.specials) + row) * s.n();
                made.insert(made.end(), from, from + s.n());
            }
    return made;
}

static void run_level(const Setting &s, const tacit_ring *ring, uint32_t limbs, uint32_t batch) {
    const size_t length = batch * s.n();
    const uint32_t alpha = (s.full + s.dnum - 1) / s.dnum, digits = (limbs + alpha - 1) / alpha;
    const uint32_t rows = limbs + s.specials;
    const Words ones(size_t(limbs + s.specials) * rows, 1);
    const tacit_basis basis = {limbs,       s.full,      s.specials,  alpha,       ones.data(),
                               ones.data(), ones.data(), ones.data(), ones.data(), ones.data()};
    std::vector<uint32_t> low, every;
    for (uint32_t i = 0; i < limbs; ++i) low.push_back(i);
    for (uint32_t i = 0; i < s.full + s.specials; ++i) every.push_back(i);
    std::vector<uint32_t> key_mods, twice;
    for (uint32_t i = 0; i < 2 * s.dnum; ++i) key_mods.insert(key_mods.end(), every.begin(), every.end());
    for (uint32_t i = 0; i < 2; ++i) twice.insert(twice.end(), low.begin(), low.end());
    const Words a = draw(s, low, batch), shared = draw(s, low), pair = draw(s, twice, batch);
    const Words key = draw(s, key_mods), other = draw(s, key_mods);
    std::vector<const uint64_t *> keys;
    for (uint32_t entry = 0; entry < batch; ++entry)
        keys.push_back(entry % 2 ? other.data() : key.data());
    Words extended(digits * rows * length), product(2 * rows * length), again(product);
    Words scratch((limbs + s.threads * (digits + 2)) * length), sums(2 * s.threads * length);
    std::vector<uint32_t> table(s.n() / 8);
    tacit_galois_table(s.log_n, 5, table.data());
    const tacit_turn turn = {table.data(), 5, limbs, a.data(), 1};
    for (const tacit_turn *how : {static_cast<const tacit_turn *>(nullptr), &turn}) {
        tacit_switch(ring, &basis, batch, a.data(), scratch.data(), keys.data(), s.dnum, s.full,
                     how, product.data());
        tacit_mod_up(ring, &basis, batch, a.data(), extended.data(), scratch.data());
        tacit_key_product(ring, &basis, batch, a.data(), extended.data(), keys.data(), s.dnum, s.full,
                          how, how ? sums.data() : nullptr, again.data());
        expect(product == again, "both products");
    }
    const Words small = trimmed(s, key, limbs, digits), small_other = trimmed(s, other, limbs, digits);
    for (uint32_t entry = 0; entry < batch; ++entry)
        keys[entry] = entry % 2 ? small_other.data() : small.data();
    tacit_key_product(ring, &basis, batch, a.data(), extended.data(), keys.data(), digits, limbs,
                      nullptr, nullptr, again.data());
    tacit_switch(ring, &basis, batch, a.data(), scratch.data(), keys.data(), digits, limbs, nullptr,
                 product.data());
    expect(product == again, "the product with trimmed keys");
    tacit_extend(ring, 1, batch, a.data(), 0, rows, nullptr, scratch.data(), extended.data());
    Words out(2 * limbs * length), work(2 * limbs * length), tensor(3 * limbs * length);
    const uint64_t *plus[2] = {a.data(), nullptr};
    tacit_mod_down(ring, &basis, 2, batch, product.data(), plus, shared.data(), out.data());
    check_below(s, twice, out, batch);
    tacit_mod_down(ring, &basis, 2, batch, again.data(), plus, nullptr, out.data());
    check_below(s, twice, out, batch);
    const uint32_t counts[2] = {1, 2};
    const uint64_t *const left[3] = {pair.data(), pair.data(), pair.data()};
    const uint64_t *const right[3] = {shared.data(), shared.data(), shared.data()};
    uint64_t *const targets[2] = {out.data(), work.data()};
    for (int halves = 0; halves < 2; ++halves)
        tacit_dot_pairs(ring, limbs, low.data(), batch, 2, counts, left, right, halves, targets);
    check_below(s, twice, work, batch);
    const std::vector<const uint64_t *> pairs(35, pair.data());
    const std::vector<uint32_t> rows_of(35, limbs);
    tacit_tensor(ring, limbs, batch, 35, pairs.data(), rows_of.data(), pairs.data(),
                 rows_of.data(), tensor.data());
    if (limbs < 2) return;
    Words lower(2 * (limbs - 1) * length), rows_of_last(2 * length);
    tacit_rescale(ring, &basis, 2, batch, pair.data(), lower.data(), rows_of_last.data());
}

int main(int count, char **arguments) {
    expect(count > 7, "arguments");
    uint32_t numbers[5];
    for (int i = 0; i < 5; ++i) numbers[i] = std::strtoul(arguments[1 + i], nullptr, 10);
    Setting s{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], {}, {}};
    const int primes = (count - 6) / 2;
    for (int i = 0; i < primes; ++i) {
        s.moduli.push_back(std::strtoull(arguments[6 + i], nullptr, 10));
        s.roots.push_back(std::strtoull(arguments[6 + primes + i], nullptr, 10));
    }
    for (int path = 0; path < 3; ++path) {
        if (!(tacit_paths() >> path & 1)) continue;
        int failure = -1;
        tacit_ring *ring = tacit_ring_new(s.log_n, primes, s.moduli.data(), s.roots.data(), path,
                                          s.threads, &failure);
        expect(ring && failure == TACIT_NONE, "ring");
        expect(!tacit_ring_new(s.log_n, 1, s.moduli.data(), s.moduli.data(), path, 1, &failure) &&
                   failure == TACIT_BAD_ARGUMENTS,
               "bad root");
        const auto work = [&] {
            for (uint32_t batch = 1; batch <= 3; batch += 2) {
                run_rows(s, ring, batch);
                for (uint32_t limbs = 1; limbs <= s.full; ++limbs) run_level(s, ring, limbs, batch);
            }
        };
        std::thread other(work);  // rings are shared between callers
        work();
        other.join();
        tacit_ring_free(ring);
    }
    std::puts("ok");
}
