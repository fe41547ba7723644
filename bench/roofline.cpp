// What this machine can do at most, measured on the spot: multiply-adds per second for each
// instruction set that the kernels use, and bytes per second from each level of memory.
//
// Every function runs on the calling thread and returns how much it did; the caller takes the time.
#include <cstddef>
#include <cstdint>
#ifdef __x86_64__
#include <immintrin.h>
#endif

// Enough chains to hide a multiply-add's latency; the registers hold them all.
#define CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9)
#define KEEP(x) asm volatile("" : "+x"(x))
#define KEEP512(x) asm volatile("" : "+v"(x))

extern "C" {

// 64-bit integer multiplications with both halves of the product.
uint64_t tacit_measure_integer(uint64_t rounds) {
    uint64_t x[8] = {3, 5, 7, 11, 13, 17, 19, 23}, sum = 0;
    for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) {
            const unsigned __int128 product = static_cast<unsigned __int128>(x[k]) * x[k];
            x[k] = static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
            asm volatile("" : "+r"(x[k]));
        }
    }
    for (const uint64_t value : x) sum += value;
    asm volatile("" ::"r"(sum));
    return 8 * rounds;
}

#ifdef __x86_64__
// Double-precision multiply-adds, four lanes.
__attribute__((target("avx2,fma"))) uint64_t tacit_measure_avx2_double(uint64_t rounds) {
    const __m256d a = _mm256_set1_pd(0.999), b = _mm256_set1_pd(0.001);
#define DECLARE(k) __m256d x##k = _mm256_set1_pd(k);
#define STEP(k) x##k = _mm256_fmadd_pd(x##k, a, b);
#define HOLD(k) KEEP(x##k);
    CHAINS(DECLARE)
    for (uint64_t i = 0; i < rounds; ++i) { CHAINS(STEP) CHAINS(HOLD) }
    return 4 * 10 * rounds;
#undef DECLARE
#undef STEP
#undef HOLD
}

// 32-bit products of 64 bits, four lanes.
__attribute__((target("avx2"))) uint64_t tacit_measure_avx2_integer(uint64_t rounds) {
    const __m256i a = _mm256_set1_epi64x(0x9e3779b9);
#define DECLARE(k) __m256i x##k = _mm256_set1_epi64x(k + 3);
#define STEP(k) x##k = _mm256_mul_epu32(x##k, a);
#define HOLD(k) KEEP(x##k);
    CHAINS(DECLARE)
    for (uint64_t i = 0; i < rounds; ++i) { CHAINS(STEP) CHAINS(HOLD) }
    return 4 * 10 * rounds;
#undef DECLARE
#undef STEP
#undef HOLD
}

// Double-precision multiply-adds, eight lanes.
__attribute__((target("avx512f"))) uint64_t tacit_measure_avx512_double(uint64_t rounds) {
    const __m512d a = _mm512_set1_pd(0.999), b = _mm512_set1_pd(0.001);
#define DECLARE(k) __m512d x##k = _mm512_set1_pd(k);
#define STEP(k) x##k = _mm512_fmadd_pd(x##k, a, b);
#define HOLD(k) KEEP512(x##k);
    CHAINS(DECLARE)
    for (uint64_t i = 0; i < rounds; ++i) { CHAINS(STEP) CHAINS(HOLD) }
    return 8 * 10 * rounds;
#undef DECLARE
#undef STEP
#undef HOLD
}

// 52-bit integer multiply-adds (one half of the product), eight lanes.
__attribute__((target("avx512f,avx512ifma"))) uint64_t tacit_measure_avx512_ifma(uint64_t rounds) {
    const __m512i a = _mm512_set1_epi64(0x9e3779b97f4a7), b = _mm512_set1_epi64(0x2545f4914f6cd);
#define DECLARE(k) __m512i x##k = _mm512_set1_epi64(k);
#define STEP(k) x##k = _mm512_madd52lo_epu64(x##k, a, b);
#define HOLD(k) KEEP512(x##k);
    CHAINS(DECLARE)
    for (uint64_t i = 0; i < rounds; ++i) { CHAINS(STEP) CHAINS(HOLD) }
    return 8 * 10 * rounds;
#undef DECLARE
#undef STEP
#undef HOLD
}

// Products of 64-bit integers, the low half, eight lanes.
__attribute__((target("avx512f,avx512dq"))) uint64_t tacit_measure_avx512_integer(uint64_t rounds) {
    const __m512i a = _mm512_set1_epi64(0x9e3779b97f4a7c15);
#define DECLARE(k) __m512i x##k = _mm512_set1_epi64(k + 3);
#define STEP(k) x##k = _mm512_mullo_epi64(x##k, a);
#define HOLD(k) KEEP512(x##k);
    CHAINS(DECLARE)
    for (uint64_t i = 0; i < rounds; ++i) { CHAINS(STEP) CHAINS(HOLD) }
    return 8 * 10 * rounds;
#undef DECLARE
#undef STEP
#undef HOLD
}
#endif

// Bit k: the processor can run set k: 0 plain, 1 AVX2 with FMA, 2 AVX-512 with IFMA.
uint32_t tacit_measure_sets(void) {
    uint32_t sets = 1;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets |= 2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512ifma"))
        sets |= 4;
#endif
    return sets;
}

// Read `words` words, add one, write them where they were; `rounds` times. Bytes read and written.
uint64_t tacit_measure_update(uint64_t *x, uint64_t words, uint64_t rounds) {
    for (uint64_t i = 0; i < rounds; ++i) {
        for (uint64_t k = 0; k < words; ++k) x[k] += 1;
        asm volatile("" ::"r"(x) : "memory");
    }
    return 16 * words * rounds;
}

// Read only.
uint64_t tacit_measure_read(const uint64_t *x, uint64_t words, uint64_t rounds) {
    for (uint64_t i = 0; i < rounds; ++i) {
        uint64_t sum = 0;
        for (uint64_t k = 0; k < words; ++k) sum += x[k];
        asm volatile("" ::"r"(sum), "r"(x) : "memory");
    }
    return 8 * words * rounds;
}

// Copy: read one array, write another.
uint64_t tacit_measure_copy(uint64_t *x, uint64_t words, uint64_t rounds) {
    const uint64_t half = words / 2;
    for (uint64_t i = 0; i < rounds; ++i) {
        for (uint64_t k = 0; k < half; ++k) x[k] = x[half + k] + 1;
        asm volatile("" ::"r"(x) : "memory");
    }
    return 16 * half * rounds;
}

}  // extern "C"
