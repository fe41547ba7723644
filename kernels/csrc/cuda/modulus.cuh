// One prime and arithmetic modulo it, in 64-bit integers.
#pragma once
#include "platform.cuh"

// A fixed factor w < q; companion = floor(w 2^64 / q) (Shoup).
struct __align__(16) Factor {
    u64 w, companion;
};

// A root of unity, or a factor of a whole row, as the transform of its prime wants it: a Factor,
// or the bits of two doubles, w in (-q/2, q/2) and w / q.
struct __align__(16) Root {
    u64 first, second;
};

struct __align__(16) Modulus {
    u64 q;
    u64 one;               // floor(2^64 / q)
    Factor two64;          // 2^64 mod q
    double real, inverse;  // q and 1 / q
    const Root *forward;   // N roots in bit-reversed order
    const Root *backward;  // N inverse roots
    u32 doubles;           // whether the transform runs in doubles
    u32 shift, factor, down;  // `nearly_reduce`
};

// x - bound if x >= bound: the difference wraps around, to something greater, if not.
TACIT_DEVICE u64 subtract_once(u64 x, u64 bound) {
    const u64 difference = x - bound;
    return difference < x ? difference : x;
}

// Any x; < 2q.
TACIT_DEVICE u64 multiply_lazy(u64 x, u64 w, u64 companion, u64 q) {
    return x * w + __umul64hi(x, companion) * (0 - q);
}

// Any x; < q.
TACIT_DEVICE u64 multiply(u64 x, Factor f, u64 q) {
    return subtract_once(multiply_lazy(x, f.w, f.companion, q), q);
}

// Any x; < 2q.
TACIT_DEVICE u64 reduce_lazy(u64 x, const Modulus &m) {
    return x - __umul64hi(x, m.one) * m.q;
}

TACIT_DEVICE u64 reduce(u64 x, const Modulus &m) {
    return subtract_once(reduce_lazy(x, m), m.q);
}

// x < 16q; < 2q: the quotient, from 32 bits of x, is too small by one at most (docs/cuda.md).
TACIT_DEVICE u64 nearly_reduce(u64 x, u32 shift, u32 factor, u32 down, u64 q) {
    const u32 quotient = __umulhi(static_cast<u32>(x >> shift), factor) >> down;
    return x - quotient * q;
}

// Any sum; < q: high 2^64 + low, each below 2q.
TACIT_DEVICE u64 reduce_wide(u128 sum, const Modulus &m) {
    const u64 high = multiply_lazy(static_cast<u64>(sum >> 64), m.two64.w, m.two64.companion, m.q);
    const u64 total = high + reduce_lazy(static_cast<u64>(sum), m);  // < 4q < 2^62
    return subtract_once(subtract_once(total, 2 * m.q), m.q);
}

// a b + c d modulo q.
TACIT_DEVICE u64 product_sum(u64 a, u64 b, u64 c, u64 d, const Modulus &m) {
    return reduce_wide(static_cast<u128>(a) * b + static_cast<u128>(c) * d, m);
}

TACIT_DEVICE u64 add_mod(u64 a, u64 b, u64 q) {
    return subtract_once(a + b, q);
}

TACIT_DEVICE u64 subtract_mod(u64 a, u64 b, u64 q) {
    return subtract_once(a + q - b, q);
}

TACIT_DEVICE u64 negate_mod(u64 a, u64 q) {
    return a ? q - a : 0;
}

// Products of residues below 2^60 that fit into 128 bits beside a residue.
constexpr u32 kMostProducts = 255;

// Rows of a basis: the limbs of Q in use, then the primes of P.
struct Rows {
    u32 limbs, first_special;
};

TACIT_DEVICE u32 modulus_of(const Rows &rows, u32 row) {
    return row < rows.limbs ? row : rows.first_special + row - rows.limbs;
}

// The place that position k of a(X^element) comes from, NTT form: position k is the value at
// psi^(2 reversed(k) + 1).
TACIT_DEVICE u32 reversed(u32 k) {
    return __brev(k) >> (32 - kLogN);
}

TACIT_DEVICE u32 moved_from(u32 k, u32 element) {
    const u32 exponent = (2 * reversed(k) + 1) * element;
    return reversed((exponent & (2 * kN - 1)) >> 1);
}
