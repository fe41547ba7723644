// CUDA's words for g++: the kernels run on a processor, unmodified, one fibre per thread.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "fibres.h"

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __syncthreads() shim::barrier(__FILE__, __LINE__)
#define TACIT_SHARED(name) u64 *const name = reinterpret_cast<u64 *>(shim::block.shared)

#define TACIT_KERNEL(name, Arguments)                                                          \
    static void name(const Arguments arguments);                                               \
    static const shim::Entry name##_entry(                                                     \
        #name, sizeof(Arguments),                                                              \
        [](const void *place) { name(*static_cast<const Arguments *>(place)); });              \
    static void name([[maybe_unused]] const Arguments arguments)
#define TACIT_BOUNDED_KERNEL(name, Arguments, threads, blocks) TACIT_KERNEL(name, Arguments)

#define threadIdx shim::block.thread
#define blockIdx shim::block.place
#define blockDim shim::block.size

struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};

template <class T>
inline T __ldg(const T *place) {
    return *place;
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}
inline double __longlong_as_double(unsigned long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline long long __double_as_longlong(double value) {
    unsigned long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
// Compiled with -ffp-contract=off: one rounding each, like their namesakes.
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
