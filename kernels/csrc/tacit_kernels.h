// CKKS arithmetic on limbs: the C interface.
//
// A polynomial is N residues, uint64, each below its modulus, in OpenFHE's NTT order (bit-reversed)
// unless a comment says coefficients. An array is [row][batch][N]: a row holds the same polynomial
// of `batch` ciphertexts and belongs to one modulus, mods[r] of the ring, or r where mods is null.
// A shared row is [N], used for all entries of the batch. Several components are blocks of rows,
// one after the other. Nothing here allocates but tacit_ring_new; nothing is global. A ring may be
// used by several threads at once.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tacit_ring tacit_ring;

enum tacit_path { TACIT_SCALAR = 0, TACIT_AVX2 = 1, TACIT_AVX512 = 2 };

// A digest of the sources this library was built from, 16 hexadecimal digits.
const char *tacit_sources(void);
// Bit p is set if this library holds path p and this processor can run it.
uint32_t tacit_paths(void);

enum tacit_failure { TACIT_NONE = 0, TACIT_BAD_ARGUMENTS = 1, TACIT_NO_RESOURCES = 2 };

// Tables for `count` primes, each 1 modulo 2N and below 2^60; psi[i] is a primitive 2N-th root of
// unity. `threads` share the rows of a call; 1 means the caller's own. Null: `failure` says
// whether arguments are out of range, or memory or threads are not to be had.
tacit_ring *tacit_ring_new(uint32_t log_n, uint32_t count, const uint64_t *moduli,
                           const uint64_t *psi, int path, uint32_t threads, int *failure);
void tacit_ring_free(tacit_ring *ring);

// In place: coefficients to NTT form, and back.
void tacit_ntt_forward(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                       uint64_t *x);
void tacit_ntt_inverse(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                       uint64_t *x);

// out may be a or b. With `shared`, the rows of b are shared ones.
void tacit_add(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
               const uint64_t *a, const uint64_t *b, int shared, uint64_t *out);
void tacit_subtract(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                    const uint64_t *a, const uint64_t *b, uint64_t *out);
void tacit_negate(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                  const uint64_t *a, uint64_t *out);
// out = (a - minus) constants[row] + plus; minus and plus may be null.
void tacit_scale(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                 const uint64_t *a, const uint64_t *minus, const uint64_t *plus,
                 const uint64_t *constants, uint64_t *out);
// out = a + constants[row] in every position: in NTT form, a constant polynomial.
void tacit_add_constant(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                        uint32_t batch, const uint64_t *a, const uint64_t *constants,
                        uint64_t *out);
// out[row] = sum_t a[t][row] b[t][row]: pointers to the first row of each term.
void tacit_dot(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t terms,
               const uint64_t *const *a, const uint64_t *const *b, uint64_t *out);
// out[o][row] = sum_t a[t][row] weights[row][o][t]; the pointers are to the first rows. With
// `halves`, weights[row][h][o][t] for the first half of the positions, h = 0, and the second.
void tacit_combine(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                   uint32_t outputs, uint32_t terms, const uint64_t *const *a,
                   const uint64_t *weights, int halves, uint64_t *const *out);
// Sums over t of a[t][0] b[t][0], a[t][0] b[t][1] + a[t][1] b[t][0], a[t][1] b[t][1]: blocks of
// `rows` rows, the second block of an operand `rows_of_a[t]` or `rows_of_b[t]` rows after the first.
void tacit_tensor(const tacit_ring *ring, uint32_t rows, uint32_t batch, uint32_t terms,
                  const uint64_t *const *a, const uint32_t *rows_of_a, const uint64_t *const *b,
                  const uint32_t *rows_of_b, uint64_t *out);
// For each output o and its counts[o] terms, which follow each other in a and b:
// out[o] = sum_t a[t] b[t], where a[t] and out[o] are pairs of blocks of `rows` rows, b[t] one of
// shared rows. `halves`: the rows of b[t] have N / 2 words, whose mirror images follow them.
void tacit_dot_pairs(const tacit_ring *ring, uint32_t rows, const uint32_t *mods, uint32_t batch,
                     uint32_t outputs, const uint32_t *counts, const uint64_t *const *a,
                     const uint64_t *const *b, int halves, uint64_t *const *out);
// Galois automorphism in NTT form: `table` from tacit_galois_table, N / 8 entries. The first
// `plus_rows` rows of `plus` are added before; with `accumulate`, the result is added to out.
void tacit_galois_table(uint32_t log_n, uint64_t element, uint32_t *table);
void tacit_automorphism(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                        uint32_t batch, const uint32_t *table, uint64_t element,
                        const uint64_t *a, uint32_t plus_rows, const uint64_t *plus,
                        int accumulate, uint64_t *out);

// Rows of a basis QP at `limbs` limbs of Q: moduli 0 .. limbs - 1, then `first_special` ...
typedef struct {
    uint32_t limbs;          // of Q, in use
    uint32_t first_special;  // index of the first prime of P in the ring: limbs of Q at the top
    uint32_t specials;       // primes of P
    uint32_t alpha;          // limbs of one digit
    const uint64_t *up_inverse;    // [limbs]: (D / q_i)^-1 mod q_i, D the digit's product
    const uint64_t *up_factor;     // [limbs][limbs + specials]: D / q_i modulo each row's prime
    const uint64_t *down_inverse;  // [specials]: (P / p_k)^-1 mod p_k
    const uint64_t *down_factor;   // [specials][limbs]: P / p_k mod q_i
    const uint64_t *p_inverse;     // [limbs]: P^-1 mod q_i
    const uint64_t *last_inverse;  // [limbs - 1]: q_last^-1 mod q_i
} tacit_basis;

// Extend each digit of `a` (limbs rows) to QP. digits: ceil(limbs / alpha) blocks of
// limbs + specials rows; a digit's own rows are left unwritten: they are those of `a`.
// scratch: limbs rows.
void tacit_mod_up(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                  const uint64_t *a, uint64_t *digits, uint64_t *scratch);

// A permutation of a product: as tacit_automorphism, with the first `plus_rows` rows of `plus`
// added to the first half before, and the result added to what is there, with `accumulate`.
typedef struct {
    const uint32_t *table;
    uint64_t element;
    uint32_t plus_rows;
    const uint64_t *plus;
    int accumulate;
} tacit_turn;

// out (2 blocks of limbs + specials rows) = sum_d digit_d keys[entry][.][d]: one key per entry of
// the batch, of shape (2, dnum, key_limbs + specials, N), with key_limbs >= limbs and as many
// digits as `limbs` fills, or more. Neighbours of one key share its rows.
// With a turn, not null, permuted; scratch: 2 rows for each of the ring's threads, or null.
void tacit_key_product(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                       const uint64_t *a, const uint64_t *digits, const uint64_t *const *keys,
                       uint32_t dnum, uint32_t key_limbs, const tacit_turn *turn,
                       uint64_t *scratch, uint64_t *out);
// Both together, the digits being used at once and not kept. scratch: limbs rows, and for each of
// the ring's threads ceil(limbs / alpha) + 2.
void tacit_switch(const tacit_ring *ring, const tacit_basis *basis, uint32_t batch,
                  const uint64_t *a, uint64_t *scratch, const uint64_t *const *keys, uint32_t dnum,
                  uint32_t key_limbs, const tacit_turn *turn, uint64_t *out);
// Take polynomials modulo prime `source` of the ring as integers from -q / 2 to q / 2, and reduce
// them modulo others: `blocks` blocks of one row to blocks of `rows` rows. scratch: blocks rows.
void tacit_extend(const tacit_ring *ring, uint32_t blocks, uint32_t batch, const uint64_t *a,
                  uint32_t source, uint32_t rows, const uint32_t *mods, uint64_t *scratch,
                  uint64_t *out);
// Divide `blocks` blocks of limbs + specials rows by P, rounding as OpenFHE does (down); add the
// limbs rows at plus[block] where that is not null, and the shared rows at `shared` if not null.
// The special rows of x are overwritten.
void tacit_mod_down(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                    uint32_t batch, uint64_t *x, const uint64_t *const *plus,
                    const uint64_t *shared, uint64_t *out);
// Divide by the last modulus, to the nearest. scratch: blocks rows; out: blocks of limbs - 1 rows.
void tacit_rescale(const tacit_ring *ring, const tacit_basis *basis, uint32_t blocks,
                   uint32_t batch, const uint64_t *x, uint64_t *out, uint64_t *scratch);

// Coefficients of the real polynomial with these slots; `parts`, the imaginary ones, may be null.
// sources, roots and twist are those of `tacit.kernels.encode.SlotTransform`; work has twice as many
// doubles as there are slots.
void tacit_slot_coefficients(uint32_t log_slots, const double *slots, const double *parts,
                             const uint32_t *sources, const double *roots, const double *twist,
                             double *work, double *out);

// Round coefficients[i] * scale to integers and reduce them; coefficients, then NTT form. out:
// shared rows.
// Returns nonzero if a value is not finite.
int tacit_encode(const tacit_ring *ring, uint32_t rows, const uint32_t *mods,
                 const double *coefficients, double scale, uint64_t *out);

#ifdef __cplusplus
}
#endif
