// Base conversion, products with keys, and integers from rounded doubles.
#pragma once
#include "elementwise.cuh"

// One set of source rows that is converted to several targets: a digit, or P of one component.
struct ConversionGroup {
    u32 source_row, sources;
    u32 first_target, targets;  // in the list of targets
    u32 first_weight, unused;   // in the list of weights: [target][source]
};

struct ConversionTarget {
    u32 modulus, row;
};

struct ConvertArguments {
    const Modulus *moduli;
    const ConversionGroup *groups;  // by blockIdx.y
    const ConversionTarget *targets;
    const u64 *weights;
    const u64 *source;
    u64 *target;
    u32 batch, per_block;  // targets of one block, blockIdx.z
    u32 rows_read, rows_written;  // of all groups: for the model of costs
};

constexpr u32 kMostSources = 8;  // held in registers

TACIT_DEVICE u64 weighted(const u64 (&x)[kMostSources], u32 count, const u64 *weights,
                          const u64 *source, u64 stride, const Modulus &m) {
    u128 sum = 0;
#pragma unroll
    for (u32 i = 0; i < kMostSources; ++i)
        if (i < count) sum += static_cast<u128>(x[i]) * weights[i];
    for (u32 i = kMostSources; i < count; ++i)
        sum += static_cast<u128>(source[i * stride]) * weights[i];
    return reduce_wide(sum, m);
}

// target = sum_i source_i weight_i: the sources are multiplied by (S / s_i)^-1 already.
TACIT_DEVICE void convert(const ConvertArguments &arguments) {
    const u64 words = static_cast<u64>(arguments.batch) * kN;
    const u64 place = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (place >= words) return;
    const ConversionGroup group = arguments.groups[blockIdx.y];
    const u32 first = blockIdx.z * arguments.per_block;
    const u32 after = first + arguments.per_block;
    const u32 end = after < group.targets ? after : group.targets;
    if (first >= end) return;
    const u64 *source = arguments.source + group.source_row * words + place;
    u64 x[kMostSources];
#pragma unroll
    for (u32 i = 0; i < kMostSources; ++i) x[i] = i < group.sources ? source[i * words] : 0;
    for (u32 t = first; t < end; ++t) {
        const ConversionTarget target = arguments.targets[group.first_target + t];
        const u64 *weights = arguments.weights + group.first_weight + t * group.sources;
        arguments.target[target.row * words + place] = weighted(
            x, group.sources, weights, source, words, arguments.moduli[target.modulus]);
    }
}

// out[part][row] = sum_d digit_d[row] key[part][d][row]: a digit's own rows are those of `a`.
struct KeyArguments {
    const Modulus *moduli;
    Rows basis;
    const u64 *a;             // [limbs][batch][N]
    const u64 *digits;        // [digits][rows][batch][N]
    const u64 *const *keys;   // per entry of the batch: [2][dnum][key_rows][N]
    u64 *out;                 // [2][rows][batch][N]
    u32 rows, count, alpha, dnum, key_rows, batch, per_block;
    u32 key_limbs;            // of Q in a key, before those of P
};

constexpr u32 kKeptDigits = 4;  // whose key words stay in registers while the key stays the same

struct KeyPlace {
    const KeyArguments &arguments;
    u32 row, place;

    TACIT_DEVICE Pair digit(u32 d, u32 entry) const {
        const KeyArguments &a = arguments;
        const bool own = row < a.basis.limbs && row / a.alpha == d;
        const u64 *rows = own ? a.a : a.digits + static_cast<u64>(d) * a.rows * a.batch * kN;
        return load_pair(rows + (static_cast<u64>(row) * a.batch + entry) * kN + place);
    }
    TACIT_DEVICE Pair key(const u64 *key, u32 part, u32 d) const {
        const KeyArguments &a = arguments;
        const u32 limbs = a.basis.limbs, key_row = row < limbs ? row : a.key_limbs + row - limbs;
        const u64 at = static_cast<u64>(part * a.dnum + d) * a.key_rows + key_row;
        return load_pair(key + at * kN + place);
    }
    TACIT_DEVICE u64 *out(u32 part, u32 entry) const {
        const KeyArguments &a = arguments;
        const u64 at = static_cast<u64>(part * a.rows + row) * a.batch + entry;
        return a.out + at * kN + place;
    }
};

TACIT_DEVICE void key_product(const KeyArguments &arguments) {
    const u32 place = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (place >= kN) return;
    const KeyPlace at{arguments, blockIdx.y, place};
    const Modulus m = arguments.moduli[modulus_of(arguments.basis, blockIdx.y)];
    const u32 first = blockIdx.z * arguments.per_block;
    const u32 after = first + arguments.per_block;
    const u32 end = after < arguments.batch ? after : arguments.batch;
    const u64 *held = nullptr;
    Pair kept[2][kKeptDigits] = {};
    for (u32 entry = first; entry < end; ++entry) {
        const u64 *key = arguments.keys[entry];
        if (key != held) {
            held = key;
#pragma unroll
            for (u32 d = 0; d < kKeptDigits; ++d)
                if (d < arguments.count) {
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
            if (d < arguments.count) add(at.digit(d, entry), kept[0][d], kept[1][d]);
        for (u32 d = kKeptDigits; d < arguments.count; ++d)
            add(at.digit(d, entry), at.key(key, 0, d), at.key(key, 1, d));
#pragma unroll
        for (u32 part = 0; part < 2; ++part)
            store_pair(at.out(part, entry), reduce_wide(sum[part][0], m),
                       reduce_wide(sum[part][1], m));
    }
}

// Integers that doubles hold, as residues: coefficients of a plaintext, rounded before.
struct ReduceArguments {
    Span span;
    const double *values;  // N
    u64 *out;
};

TACIT_DEVICE u64 residue_of(double value, const Modulus &m) {
    const u64 bits = __double_as_longlong(value) & 0x7fffffffffffffff;
    const int exponent = static_cast<int>(bits >> 52) - 1075;
    const u64 mantissa = (bits & 0x000fffffffffffff) | 0x0010000000000000;
    u64 r = 0;
    if (exponent >= 0) {
        r = reduce(mantissa, m);
        for (int left = exponent; left > 0; left -= 30)
            r = reduce_wide(static_cast<u128>(r) << (left < 30 ? left : 30), m);
    } else if (exponent > -53) {
        r = reduce(mantissa >> -exponent, m);
    }
    return value < 0.0 ? negate_mod(r, m.q) : r;
}

TACIT_DEVICE void reduce_doubles(const ReduceArguments &arguments) {
    each_pair(arguments.span, arguments.out, [&](const Modulus &m, u32, u32, u64 place, u64) {
        return Pair{residue_of(arguments.values[place], m),
                    residue_of(arguments.values[place + 1], m)};
    });
}
