// Slots to coefficients: a Fourier transform of N/2 complex numbers, decimation in frequency. The same
// operations in the same order as csrc/cuda/fourier.cuh, each with one rounding (no contraction), so
// that both give the same bits.
#include <cstddef>
#include <cstdint>

#include "tacit_kernels.h"

namespace {

// Layers of halves; the roots of a layer: real parts, then imaginary ones.
void transform(size_t count, const double *roots, double *real, double *imaginary) {
    for (size_t half = count / 2; half; half /= 2) {
        for (size_t start = 0; start < count; start += 2 * half) {
            double *xr = real + start, *xi = imaginary + start, *yr = xr + half, *yi = xi + half;
            for (size_t j = 0; j < half; ++j) {
                const double wr = roots[j], wi = roots[half + j];
                const double dr = xr[j] - yr[j], di = xi[j] - yi[j];
                xr[j] = xr[j] + yr[j];
                xi[j] = xi[j] + yi[j];
                yr[j] = dr * wr - di * wi;
                yi[j] = dr * wi + di * wr;
            }
        }
        roots += 2 * half;
    }
}

}  // namespace

extern "C" void tacit_slot_coefficients(uint32_t log_slots, const double *slots,
                                        const double *parts, const uint32_t *sources, const double *roots,
                                        const double *twist, double *work, double *out) {
    const size_t count = size_t(1) << log_slots;
    double *real = work, *imaginary = work + count;
    for (size_t i = 0; i < count; ++i) {
        real[i] = slots[sources[i]];
        imaginary[i] = parts ? parts[sources[i]] : 0.0;
    }
    transform(count, roots, real, imaginary);
    size_t at = 0;  // k with its bits reversed
    for (size_t k = 0; k < count; ++k) {
        const double re = real[at], im = imaginary[at], wr = twist[k], wi = twist[count + k];
        out[k] = re * wr - im * wi;
        // Real slots: a(1 / X) = a(X), to the last bit.
        if (parts) out[count + k] = re * wi + im * wr;
        else out[k ? 2 * count - k : count] = k ? -out[k] : 0.0;
        size_t bit = count >> 1;
        while (at & bit) {
            at ^= bit;
            bit >>= 1;
        }
        at |= bit;
    }
}
