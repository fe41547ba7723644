// The two arithmetics of the transform. Both keep values lazy between layers and know a bound of
// every value while they are compiled; docs/cuda.md proves the bounds.
#pragma once
#include "modulus.cuh"

// 64-bit integers, q < 2^60. Bounds count q; words hold 16q, and products with roots are below 2q.
struct Integers {
    using Value = u64;
    static constexpr int kResidue = 1, kTrimmed = 2, kProduct = 2, kLimit = 16;
    u64 q;
    u32 shift, factor, down;

    TACIT_DEVICE explicit Integers(const Modulus &m)
        : q(m.q), shift(m.shift), factor(m.factor), down(m.down) {}
    TACIT_DEVICE Value from_residue(u64 residue) const { return residue; }
    TACIT_DEVICE Value from_stored(u64 word) const { return word; }
    TACIT_DEVICE u64 to_stored(Value v) const { return v; }

    static constexpr int after_forward(int bound) { return bound + 2; }

    TACIT_DEVICE void trim(Value &v) const { v = nearly_reduce(v, shift, factor, down, q); }

    // y may be any word.
    TACIT_DEVICE void forward(Value &x, Value &y, const Root &w) const {
        const u64 t = multiply_lazy(y, w.first, w.second, q);
        y = x + 2 * q - t;
        x = x + t;
    }

    TACIT_DEVICE void backward(Value &x, Value &y, const Root &w, int bound) const {
        const u64 difference = x + q * static_cast<u64>(bound) - y;
        x = x + y;
        y = multiply_lazy(difference, w.first, w.second, q);
    }

    TACIT_DEVICE u64 residue(Value v) const {
        trim(v);
        return subtract_once(v, q);
    }

    TACIT_DEVICE u64 scaled(Value v, const Root &w) const {
        return subtract_once(multiply_lazy(v, w.first, w.second, q), q);
    }
};

// Doubles, 1000 < q < 2^50. A value is an integer of at most 4q in magnitude; bounds count
// q / 1000.
struct Reals {
    using Value = double;
    static constexpr int kResidue = 1000, kTrimmed = 502, kProduct = 640, kLimit = 4000;
    double q, inverse;

    TACIT_DEVICE explicit Reals(const Modulus &m) : q(m.real), inverse(m.inverse) {}

    // Adding and subtracting it gives the nearest integer for magnitudes up to 2^51.
    static TACIT_DEVICE double rounding() { return 6755399441055744.0; }  // 1.5 * 2^52
    static TACIT_DEVICE double two52() { return 4503599627370496.0; }

    TACIT_DEVICE Value from_residue(u64 residue) const {  // exact below 2^52
        return __dsub_rn(__longlong_as_double(residue | 0x4330000000000000), two52());
    }
    TACIT_DEVICE Value from_stored(u64 word) const { return __longlong_as_double(word); }
    TACIT_DEVICE u64 to_stored(Value v) const { return __double_as_longlong(v); }

    static constexpr int after_forward(int bound) { return bound + kProduct; }

    // x w - round(x w / q) q, exactly, for |x| <= 4q: at most 0.63 q in magnitude.
    TACIT_DEVICE Value product(Value x, const Root &root) const {
        const double w = __longlong_as_double(root.first);
        const double ratio = __longlong_as_double(root.second);
        const double k = __dsub_rn(__fma_rn(x, ratio, rounding()), rounding());
        const double high = __dmul_rn(x, w);
        const double low = __fma_rn(x, w, -high);
        return __dadd_rn(__fma_rn(-k, q, high), low);
    }

    // x - round(x / q) q
    TACIT_DEVICE void trim(Value &v) const {
        const double k = __dsub_rn(__fma_rn(v, inverse, rounding()), rounding());
        v = __fma_rn(-k, q, v);
    }

    TACIT_DEVICE void forward(Value &x, Value &y, const Root &w) const {
        const double t = product(y, w);
        y = __dsub_rn(x, t);
        x = __dadd_rn(x, t);
    }

    TACIT_DEVICE void backward(Value &x, Value &y, const Root &w, int) const {
        const double sum = __dadd_rn(x, y);
        y = product(__dsub_rn(x, y), w);
        x = sum;
    }

    TACIT_DEVICE u64 from_balanced(Value v) const {  // |v| < q
        const double positive = v < 0.0 ? __dadd_rn(v, q) : v;
        return __double_as_longlong(__dadd_rn(positive, two52())) & 0x000fffffffffffff;
    }
    TACIT_DEVICE u64 residue(Value v) const {
        trim(v);
        return from_balanced(v);
    }
    TACIT_DEVICE u64 scaled(Value v, const Root &w) const { return from_balanced(product(v, w)); }
};

// The field of a generic lambda's argument.
template <class T>
struct FieldOf;
template <class T>
struct FieldOf<const T &> {
    using Type = T;
};
