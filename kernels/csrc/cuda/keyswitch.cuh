// Base conversion, remainders of small keys, and integers from rounded doubles.
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

// From a secret to its sparse one: division by p p', to the nearest, of polynomials modulo q p p'.
// y p' + y' p - wraps p p' is the remainder, of magnitude below p p' / 2, modulo q.
struct RemainderArguments {
    const Modulus *moduli;        // q, p, p'
    const u64 *source;            // [part][2][batch][N]: y modulo p, y' modulo p'
    u64 *out;                     // [part][batch][N]
    u64 weights[3];               // p', p and -p p' modulo q
    u32 batch, unused;
};

TACIT_DEVICE double whole_number(u64 x) {  // exact below 2^52
    return __dsub_rn(__longlong_as_double(x | 0x4330000000000000), 4503599627370496.0);
}

TACIT_DEVICE void small_remainder(const RemainderArguments &arguments) {
    const u64 words = static_cast<u64>(arguments.batch) * kN;
    const u64 place = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (place >= words) return;
    const u64 *source = arguments.source + 2 * blockIdx.y * words + place;
    const u64 y = source[0], other = source[words];
    const double sum = __dadd_rn(__ddiv_rn(whole_number(y), arguments.moduli[1].real),
                                 __ddiv_rn(whole_number(other), arguments.moduli[2].real));
    const u64 wraps = static_cast<u64>(__double_as_longlong(__dadd_rn(sum, 4503599627370496.0))) &
                      0x000fffffffffffff;
    const u128 total = static_cast<u128>(y) * arguments.weights[0] +
                       static_cast<u128>(other) * arguments.weights[1] +
                       static_cast<u128>(wraps) * arguments.weights[2];
    arguments.out[blockIdx.y * words + place] = reduce_wide(total, arguments.moduli[0]);
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
