// The words that every kernel uses. TACIT_LOG_N fixes the ring; NVRTC, nvcc and, for tests, g++
// (with TACIT_SHIM, see shim/words.h) compile the same sources.
#pragma once

using u32 = unsigned int;
using u64 = unsigned long long;
using u128 = unsigned __int128;

#ifdef TACIT_SHIM
#include "shim/words.h"
#else
#define TACIT_SHARED(name) extern __shared__ __align__(16) u64 name[]
#define TACIT_KERNEL(name, Arguments) extern "C" __global__ void name(const Arguments arguments)
#define TACIT_BOUNDED_KERNEL(name, Arguments, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Arguments arguments)
#endif

#define TACIT_DEVICE __device__ __forceinline__

#ifndef TACIT_LOG_N
#error "TACIT_LOG_N, the base-2 logarithm of N, is missing"
#endif
// 1 where the device adds and multiplies doubles at full rate: narrow primes then use them.
#ifndef TACIT_DOUBLES
#define TACIT_DOUBLES 1
#endif

constexpr int kLogN = TACIT_LOG_N;
constexpr u32 kN = 1u << kLogN;
static_assert(kLogN >= 6 && kLogN <= 17, "N = 2^6 to 2^17");

// 16 bytes: one load.
struct __align__(16) Pair {
    u64 first, second;
};

TACIT_DEVICE Pair load_pair(const u64 *place) {
    return *reinterpret_cast<const Pair *>(place);
}

// From memory that no kernel of a launch writes.
TACIT_DEVICE Pair load_constant(const void *place) {
    const ulonglong2 words = __ldg(static_cast<const ulonglong2 *>(place));
    return Pair{words.x, words.y};
}

// The same pointer, of which the compiler knows nothing: so that it does not load ahead of a loop
// what would then fill all registers.
template <class T>
TACIT_DEVICE const T *opaque(const T *pointer) {
#ifndef TACIT_SHIM
    asm volatile("" : "+l"(pointer));
#endif
    return pointer;
}

TACIT_DEVICE void store_pair(u64 *place, u64 first, u64 second) {
    *reinterpret_cast<Pair *>(place) = Pair{first, second};
}
