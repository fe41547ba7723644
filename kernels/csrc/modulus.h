// One prime with its tables, and the table of kernels that work on it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tacit {

using u64 = uint64_t;
using u128 = unsigned __int128;

constexpr int kNarrowBits = 50;  // primes below 2^50 take the fast paths

struct Kernels;

// A constant factor w with floor(w 2^52 / q) and floor(w 2^64 / q) (Shoup, Harvey).
struct Factor {
    u64 w, w52, w64;
};

struct Modulus {
    u64 q = 0;
    uint32_t log_n = 0;
    bool narrow = false;
    const Kernels *kernels = nullptr;
    // Powers of the root in bit-reversed order with their companions, see build_tables.
    u64 *forward = nullptr, *forward_base = nullptr;
    u64 *inverse = nullptr, *inverse_base = nullptr;
    Factor n_inverse{};   // N^-1
    Factor one{};         // 1: multiplying by it reduces
    Factor two30{}, two52{}, two60{}, two64{};  // powers of two
};

struct Kernels {
    int lanes;  // N < 2 lanes^2 is not supported
    // The two companion words of a power of the root.
    void (*encode_root)(const Modulus &, u64 w, u64 out[2]);
    void (*forward)(const Modulus &, u64 *x);
    void (*inverse)(const Modulus &, u64 *x);
    void (*add)(const Modulus &, size_t n, const u64 *a, const u64 *b, u64 *out);
    void (*subtract)(const Modulus &, size_t n, const u64 *a, const u64 *b, u64 *out);
    // out = (a - minus) w + plus; minus, plus may be null.
    void (*scale)(const Modulus &, size_t n, const u64 *a, const u64 *minus, const u64 *plus,
                  const Factor &w, u64 *out);
    void (*add_constant)(const Modulus &, size_t n, const u64 *a, u64 constant, u64 *out);
    // out = sum a[t] b[t]. Chunks of at most kMostTerms.
    void (*dot)(const Modulus &, size_t n, size_t terms, const u64 *const *a,
                const u64 *const *b, u64 *out);
    // The same with each b[t] read backwards, from its last word.
    void (*dot_mirrored)(const Modulus &, size_t n, size_t terms, const u64 *const *a,
                         const u64 *const *b, u64 *out);
    // out = sum a[t] weights[t]; a below 2^60 (below 2^50 unless wide), of any modulus.
    void (*combine)(const Modulus &, size_t n, size_t terms, const u64 *const *a,
                    const u64 *weights, bool wide, u64 *out);
    // Residues of `from`, centred, modulo `to`.
    void (*centre)(const Modulus &from, const Modulus &to, size_t n, const u64 *a, u64 *out);
};

// out = permuted (a + plus), or that added to out; plus may be null.
using Permute = void (*)(const Modulus &, size_t n, const uint32_t *table, const u64 (*orders)[8],
                         const u64 *a, const u64 *plus, bool accumulate, u64 *out);

extern const Kernels kScalarKernels;
void permute_scalar(const Modulus &, size_t n, const uint32_t *table, const u64 (*orders)[8],
                    const u64 *a, const u64 *plus, bool accumulate, u64 *out);
#ifdef TACIT_X86
extern const Kernels kAvx2Kernels, kAvx2WideKernels;
extern const Kernels kAvx512NarrowKernels, kAvx512WideKernels;
void permute_avx2(const Modulus &, size_t n, const uint32_t *table, const u64 (*orders)[8],
                  const u64 *a, const u64 *plus, bool accumulate, u64 *out);
void permute_avx512(const Modulus &, size_t n, const uint32_t *table, const u64 (*orders)[8],
                    const u64 *a, const u64 *plus, bool accumulate, u64 *out);
#endif

static inline u64 mul_mod(u64 a, u64 b, u64 q) { return static_cast<u64>(u128(a) * b % q); }

static inline Factor make_factor(u64 w, u64 q) {
    return {w, static_cast<u64>((u128(w) << 52) / q), static_cast<u64>((u128(w) << 64) / q)};
}

}  // namespace tacit
