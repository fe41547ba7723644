// Digits times switching keys: for one word inside the transforms, and row by row for sums that stay
// over QP.
#pragma once
#include "modulus.cuh"

constexpr u32 kMostTurns = 32;  // automorphisms of one launch
constexpr u32 kKeptDigits = 4;  // read side by side, and kept while the key stays the same

// One automorphism, and the keys of its entries: [2][digits][rows][N] each, the limbs of Q that they
// cover and then the primes of P.
struct Turn {
    const u64 *const *keys;  // [batch]
    u32 element, digits, rows, limbs;
};

// sum_d digit_d[row] key[part][d][row]: a digit's own rows are those of `a`.
struct Keyed {
    const u64 *a;            // [limbs][batch][N]
    const u64 *digits;       // [digits][rows][batch][N]
    Rows basis;
    u32 rows, count, alpha, batch;
    u32 different, unused;  // keys of one turn: for the model of costs
    Turn turns[kMostTurns];

    TACIT_DEVICE const u64 *digit(u32 d, u32 row, u32 entry) const {
        const bool own = row < basis.limbs && row / alpha == d;
        const u64 *from = own ? a : digits + static_cast<u64>(d) * rows * batch * kN;
        return from + (static_cast<u64>(row) * batch + entry) * kN;
    }
    TACIT_DEVICE const u64 *key_of(u32 turn, u32 entry) const {
        return turns[turn].keys[entry];
    }
    TACIT_DEVICE u64 key_row(const Turn &turn, u32 part, u32 d, u32 row) const {
        const u32 at = row < basis.limbs ? row : turn.limbs + row - basis.limbs;
        return (static_cast<u64>(part * turn.digits + d) * turn.rows + at) * kN;
    }

    // One word of the sum; the first digits' loads do not wait for each other.
    TACIT_DEVICE u64 value(const u64 *key, const Turn &turn, u32 part, u32 row, u32 entry,
                           u32 place, const Modulus &m) const {
        u64 low[kKeptDigits], high[kKeptDigits];
#pragma unroll
        for (u32 d = 0; d < kKeptDigits; ++d) {
            low[d] = d < count ? digit(d, row, entry)[place] : 0;
            high[d] = d < count ? key[key_row(turn, part, d, row) + place] : 0;
        }
        u128 sum = 0;
#pragma unroll
        for (u32 d = 0; d < kKeptDigits; ++d) sum += static_cast<u128>(low[d]) * high[d];
        for (u32 d = kKeptDigits; d < count; ++d)
            sum += static_cast<u128>(digit(d, row, entry)[place]) *
                   key[key_row(turn, part, d, row) + place];
        return reduce_wide(sum, m);
    }
};

// out[turn][part][row] = (sum + plus)(X^element), or all turns added to out[part][row].
struct KeyArguments {
    const Modulus *moduli;
    Keyed keyed;
    const u64 *plus;  // rows of the first part, or null
    u64 *out;
    u32 turns, plus_rows, accumulate, per_block;
};

TACIT_DEVICE Pair swapped(const Pair &pair, bool swap) {
    return swap ? Pair{pair.second, pair.first} : pair;
}

// Neighbours in NTT form stay neighbours under an automorphism: X and -X.
struct KeyPlace {
    const KeyArguments &arguments;
    const Turn &turn;
    const Modulus &modulus;
    u32 row, place, from;
    bool swap;

    TACIT_DEVICE KeyPlace(const KeyArguments &a, const Turn &t, const Modulus &m, u32 r, u32 at)
        : arguments(a), turn(t), modulus(m), row(r), place(at) {
        const u32 source = moved_from(at, t.element);
        from = source & ~1u;
        swap = source & 1;
    }
    TACIT_DEVICE Pair digit(u32 d, u32 entry) const {
        return load_pair(arguments.keyed.digit(d, row, entry) + from);
    }
    TACIT_DEVICE Pair key(const u64 *key, u32 part, u32 d) const {
        return load_pair(key + arguments.keyed.key_row(turn, part, d, row) + from);
    }
    TACIT_DEVICE Pair plus(u32 part, u32 entry) const {
        if (part || !arguments.plus || row >= arguments.plus_rows) return Pair{0, 0};
        const u64 at = static_cast<u64>(row) * arguments.keyed.batch + entry;
        return load_pair(arguments.plus + at * kN + from);
    }
    TACIT_DEVICE void put(u32 index, u32 part, u32 entry, const Pair &sum) const {
        const KeyArguments &a = arguments;
        const u64 q = modulus.q;
        const u32 array = a.accumulate ? part : 2 * index + part;
        const u64 at = static_cast<u64>(array * a.keyed.rows + row) * a.keyed.batch + entry;
        u64 *target = a.out + at * kN + place;
        const Pair added = plus(part, entry);
        Pair made{add_mod(sum.first, added.first, q), add_mod(sum.second, added.second, q)};
        made = swapped(made, swap);
        if (a.accumulate) {
            const Pair before = load_pair(target);
            made = Pair{add_mod(made.first, before.first, q),
                        add_mod(made.second, before.second, q)};
        }
        store_pair(target, made.first, made.second);
    }
};

// One turn: entries `first` to `end` - 1 of the batch.
TACIT_DEVICE void key_turn(const KeyPlace &at, u32 turn, u32 first, u32 end) {
    const Keyed &keyed = at.arguments.keyed;
    const u64 *held = nullptr;
    Pair kept[2][kKeptDigits] = {};
    for (u32 entry = first; entry < end; ++entry) {
        const u64 *key = keyed.key_of(turn, entry);
        if (key != held) {
            held = key;
#pragma unroll
            for (u32 d = 0; d < kKeptDigits; ++d)
                if (d < keyed.count) {
                    kept[0][d] = at.key(key, 0, d);
                    kept[1][d] = at.key(key, 1, d);
                }
        }
        u128 sum[2][2] = {};
        const auto add = [&](const Pair &digit, const Pair &low, const Pair &high) {
            sum[0][0] += static_cast<u128>(digit.first) * low.first;
            sum[0][1] += static_cast<u128>(digit.second) * low.second;
            sum[1][0] += static_cast<u128>(digit.first) * high.first;
            sum[1][1] += static_cast<u128>(digit.second) * high.second;
        };
#pragma unroll
        for (u32 d = 0; d < kKeptDigits; ++d)
            if (d < keyed.count) add(at.digit(d, entry), kept[0][d], kept[1][d]);
        for (u32 d = kKeptDigits; d < keyed.count; ++d)
            add(at.digit(d, entry), at.key(key, 0, d), at.key(key, 1, d));
#pragma unroll
        for (u32 part = 0; part < 2; ++part)
            at.put(turn, part, entry,
                   Pair{reduce_wide(sum[part][0], at.modulus),
                        reduce_wide(sum[part][1], at.modulus)});
    }
}

// Turns of one place follow each other: digits then come from near caches.
TACIT_DEVICE void key_product(const KeyArguments &arguments) {
    const u32 place = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (place >= kN) return;
    const Modulus m = arguments.moduli[modulus_of(arguments.keyed.basis, blockIdx.y)];
    const u32 first = blockIdx.z * arguments.per_block;
    const u32 after = first + arguments.per_block;
    const u32 end = after < arguments.keyed.batch ? after : arguments.keyed.batch;
    for (u32 turn = 0; turn < arguments.turns; ++turn) {
        const KeyPlace at(arguments, arguments.keyed.turns[turn], m, blockIdx.y, place);
        key_turn(at, turn, first, end);
    }
}
