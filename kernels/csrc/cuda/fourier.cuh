// Slots to coefficients: a Fourier transform of N/2 complex numbers, the same operations in the same
// order as csrc/fourier.cpp, each with one rounding, so that both give the same bits.
#pragma once
#include "platform.cuh"

constexpr int kLogSlots = kLogN - 1;
constexpr u32 kSlots = 1u << kLogSlots;
constexpr int kMostLayers = 3;  // of one launch

struct FourierArguments {
    const double *slots;   // of the first launch: in the order of slots; else null
    const double *parts;   // their imaginary parts, or null
    const u32 *sources;    // where each place of the transform finds its slot
    const double *roots;   // by layer: real parts, then imaginary ones
    double *work;          // [2][N/2]: real and imaginary parts
    u32 first, layers;
};

template <int kLayers>
TACIT_DEVICE void fourier_layers(const FourierArguments &arguments, u32 thread) {
    const int log_step = kLogSlots - static_cast<int>(arguments.first) - kLayers;
    const u32 rest = thread & ((1u << log_step) - 1);
    const u32 start = (thread >> log_step) << (log_step + kLayers) | rest;
    double *real = arguments.work, *imaginary = arguments.work + kSlots;
    double re[1 << kLayers], im[1 << kLayers];
#pragma unroll
    for (u32 e = 0; e < 1u << kLayers; ++e) {
        const u32 place = start + (e << log_step);
        re[e] = arguments.slots ? arguments.slots[arguments.sources[place]] : real[place];
        im[e] = arguments.slots ? 0.0 : imaginary[place];
        if (arguments.parts) im[e] = arguments.parts[arguments.sources[place]];
    }
#pragma unroll
    for (int layer = 0; layer < kLayers; ++layer) {
        const u32 half_e = 1u << (kLayers - 1 - layer), half = half_e << log_step;
        const double *roots =
            arguments.roots + 2 * (kSlots - (kSlots >> (arguments.first + layer)));
#pragma unroll
        for (u32 pair = 0; pair < 1u << (kLayers - 1); ++pair) {
            const u32 x = (pair & (half_e - 1)) | (pair & ~(half_e - 1)) << 1, y = x + half_e;
            const u32 j = (x & (half_e - 1)) << log_step | rest;
            const double wr = roots[j], wi = roots[half + j];
            const double dr = __dsub_rn(re[x], re[y]), di = __dsub_rn(im[x], im[y]);
            re[x] = __dadd_rn(re[x], re[y]);
            im[x] = __dadd_rn(im[x], im[y]);
            re[y] = __dsub_rn(__dmul_rn(dr, wr), __dmul_rn(di, wi));
            im[y] = __dadd_rn(__dmul_rn(dr, wi), __dmul_rn(di, wr));
        }
    }
#pragma unroll
    for (u32 e = 0; e < 1u << kLayers; ++e) {
        real[start + (e << log_step)] = re[e];
        imaginary[start + (e << log_step)] = im[e];
    }
}

TACIT_DEVICE void fourier(const FourierArguments &arguments) {
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= kSlots >> arguments.layers) return;
    if (arguments.layers == 3) fourier_layers<3>(arguments, thread);
    if (arguments.layers == 2) fourier_layers<2>(arguments, thread);
    if (arguments.layers == 1) fourier_layers<1>(arguments, thread);
}

// Coefficients k and k + N/2 times the scale, rounded to the nearest even.
struct RoundArguments {
    const double *work;   // the transform, in bit-reversed order
    const double *twist;  // [2][N/2]
    double *out;          // N
    double scale;
    u32 real;             // the slots are real: a(1 / X) = a(X), to the last bit
};

TACIT_DEVICE void round_slots(const RoundArguments &arguments) {
    const u32 k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= kSlots) return;
    const u32 at = __brev(k) >> (32 - kLogSlots);
    const double re = arguments.work[at], im = arguments.work[kSlots + at];
    const double wr = arguments.twist[k], wi = arguments.twist[kSlots + k];
    const double real = __dsub_rn(__dmul_rn(re, wr), __dmul_rn(im, wi));
    const double imaginary = __dadd_rn(__dmul_rn(re, wi), __dmul_rn(im, wr));
    const double rounded = rint(__dmul_rn(real, arguments.scale));
    arguments.out[k] = rounded;
    if (arguments.real)
        arguments.out[k ? 2 * kSlots - k : kSlots] = k ? -rounded : 0.0;
    else
        arguments.out[kSlots + k] = rint(__dmul_rn(imaginary, arguments.scale));
}
