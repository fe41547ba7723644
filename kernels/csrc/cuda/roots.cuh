// Tables of roots, made on the device.
#pragma once
#include "modulus.cuh"

struct RootsArguments {
    const Modulus *moduli;  // their tables are written
    const u64 *psi;         // [moduli][2]: a primitive 2N-th root of unity and its inverse
    const u64 *odd_inverse; // [moduli]: q^-1 modulo 2^64
};

TACIT_DEVICE u64 multiply_any(u64 a, u64 b, const Modulus &m) {
    return reduce_wide(static_cast<u128>(a) * b, m);
}

// floor(w 2^64 / q): w 2^64 = w (one q + r), r = 2^64 mod q, and w r / q is exact but for its rest.
TACIT_DEVICE u64 companion_of(u64 w, const Modulus &m, u64 odd_inverse) {
    const u128 product = static_cast<u128>(w) * m.two64.w;
    const u64 rest = reduce_wide(product, m);
    return w * m.one + (static_cast<u64>(product) - rest) * odd_inverse;
}

TACIT_DEVICE Root encode_root(u64 w, const Modulus &m, u64 odd_inverse) {
    if (!m.doubles) return Root{w, companion_of(w, m, odd_inverse)};
    const bool negative = w > m.q / 2;
    const u64 magnitude = negative ? m.q - w : w;
    const double exact = __longlong_as_double(magnitude | 0x4330000000000000);
    const double positive = __dsub_rn(exact, 4503599627370496.0);
    const double centred = negative ? -positive : positive;
    return Root{static_cast<u64>(__double_as_longlong(centred)),
                static_cast<u64>(__double_as_longlong(__ddiv_rn(centred, m.real)))};
}

// blockIdx.y: modulus; blockIdx.z: 0 forward, 1 backward. Place i holds psi^reversed(i).
TACIT_DEVICE void make_roots(const RootsArguments &arguments) {
    const u32 place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= kN) return;
    const Modulus m = arguments.moduli[blockIdx.y];
    u64 square = arguments.psi[2 * blockIdx.y + blockIdx.z], power = 1;
    for (u32 exponent = reversed(place); exponent; exponent >>= 1) {
        if (exponent & 1) power = multiply_any(power, square, m);
        square = multiply_any(square, square, m);
    }
    const Root *table = blockIdx.z ? m.backward : m.forward;
    const_cast<Root *>(table)[place] = encode_root(power, m, arguments.odd_inverse[blockIdx.y]);
}
