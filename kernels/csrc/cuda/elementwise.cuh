// Arithmetic position by position, two positions per thread. Arrays are [component][row][batch][N];
// blockIdx.y counts components times rows, blockIdx.x pairs of words of one row.
#pragma once
#include "modulus.cuh"

constexpr u32 kMostRows = 64;    // of one component, in arguments
constexpr u32 kMostTerms = 120;  // per launch; sums of more continue

struct Span {
    const Modulus *moduli;
    Rows basis;
    u32 rows;   // of one component
    u32 batch;  // entries of a row
};

// The place of this thread's pair within its row; false beyond the end.
TACIT_DEVICE bool pair_place(const Span &span, u64 &place) {
    place = 2 * (static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x);
    return place < static_cast<u64>(span.batch) * kN;
}

TACIT_DEVICE u64 words_of_row(const Span &span) {
    return static_cast<u64>(span.batch) * kN;
}

template <class F>
TACIT_DEVICE void each_pair(const Span &span, u64 *out, const F &f) {
    u64 place;
    if (!pair_place(span, place)) return;
    const u32 component = blockIdx.y / span.rows, row = blockIdx.y % span.rows;
    const Modulus m = span.moduli[modulus_of(span.basis, row)];
    const u64 at = static_cast<u64>(blockIdx.y) * words_of_row(span) + place;
    const Pair made = f(m, component, row, place, at);
    store_pair(out + at, made.first, made.second);
}

struct BinaryArguments {
    Span span;
    const u64 *a, *b;
    u64 *out;
    u32 subtract, unused;
};

TACIT_DEVICE void binary(const BinaryArguments &arguments) {
    each_pair(arguments.span, arguments.out,
              [&](const Modulus &m, u32, u32, u64, u64 at) {
                  const Pair a = load_pair(arguments.a + at), b = load_pair(arguments.b + at);
                  if (arguments.subtract)
                      return Pair{subtract_mod(a.first, b.first, m.q),
                                  subtract_mod(a.second, b.second, m.q)};
                  return Pair{add_mod(a.first, b.first, m.q), add_mod(a.second, b.second, m.q)};
              });
}

struct NegateArguments {
    Span span;
    const u64 *a;
    u64 *out;
};

TACIT_DEVICE void negate(const NegateArguments &arguments) {
    each_pair(arguments.span, arguments.out, [&](const Modulus &m, u32, u32, u64, u64 at) {
        const Pair a = load_pair(arguments.a + at);
        return Pair{negate_mod(a.first, m.q), negate_mod(a.second, m.q)};
    });
}

// out[c][row] = a[c][row] factors[row]; a has `source_rows` rows per component; rows of `out` for
// which there is no factor (count) are zero.
struct ScaleArguments {
    Span span;
    const u64 *a;
    u64 *out;
    u32 source_rows, count;
    Factor factors[kMostRows];
};

TACIT_DEVICE void scale(const ScaleArguments &arguments) {
    each_pair(arguments.span, arguments.out,
              [&](const Modulus &m, u32 component, u32 row, u64 place, u64) {
                  if (row >= arguments.count) return Pair{0, 0};
                  const u64 from = (static_cast<u64>(component) * arguments.source_rows + row) *
                                       words_of_row(arguments.span) +
                                   place;
                  const Pair a = load_pair(arguments.a + from);
                  const Factor factor = arguments.factors[row];
                  return Pair{multiply(a.first, factor, m.q), multiply(a.second, factor, m.q)};
              });
}

// The first component plus constants[row], or plus a plaintext with a batch of 1; others copied.
struct PlainArguments {
    Span span;
    const u64 *a;
    const u64 *plain;  // rows, or null
    u64 *out;
    u64 constants[kMostRows];
};

TACIT_DEVICE void add_plain(const PlainArguments &arguments) {
    each_pair(arguments.span, arguments.out,
              [&](const Modulus &m, u32 component, u32 row, u64 place, u64 at) {
                  const Pair a = load_pair(arguments.a + at);
                  if (component) return a;
                  Pair b = Pair{arguments.constants[row], arguments.constants[row]};
                  if (arguments.plain)
                      b = load_pair(arguments.plain + static_cast<u64>(row) * kN +
                                    (place & (kN - 1)));
                  return Pair{add_mod(a.first, b.first, m.q), add_mod(a.second, b.second, m.q)};
              });
}

// a0 b0, a0 b1 + a1 b0, a1 b1 (+ out); blockIdx.y counts rows.
struct TensorArguments {
    Span span;
    const u64 *a, *b;
    u64 *out;
    u32 accumulate, unused;
};

TACIT_DEVICE void tensor(const TensorArguments &arguments) {
    const Span &span = arguments.span;
    u64 place;
    if (!pair_place(span, place)) return;
    const Modulus m = span.moduli[modulus_of(span.basis, blockIdx.y)];
    const u64 component = span.rows * words_of_row(span);
    const u64 at = blockIdx.y * words_of_row(span) + place;
    const Pair a0 = load_pair(arguments.a + at), a1 = load_pair(arguments.a + component + at);
    const Pair b0 = load_pair(arguments.b + at), b1 = load_pair(arguments.b + component + at);
    const auto put = [&](u32 part, u64 first, u64 second) {
        u64 *out = arguments.out + part * component + at;
        const Pair before = arguments.accumulate ? load_pair(out) : Pair{0, 0};
        store_pair(out, add_mod(first, before.first, m.q), add_mod(second, before.second, m.q));
    };
    put(0, product_sum(a0.first, b0.first, 0, 0, m), product_sum(a0.second, b0.second, 0, 0, m));
    put(1, product_sum(a0.first, b1.first, a1.first, b0.first, m),
        product_sum(a0.second, b1.second, a1.second, b0.second, m));
    put(2, product_sum(a1.first, b1.first, 0, 0, m), product_sum(a1.second, b1.second, 0, 0, m));
}

// out = sum_t a[t] b[t] (+ out): a[t] with the batch, b[t] plaintexts with a batch of 1.
struct DotArguments {
    Span span;
    u64 *out;
    u32 terms, continues;
    const u64 *a[kMostTerms];
    const u64 *b[kMostTerms];
};

TACIT_DEVICE void dot_pairs(const DotArguments &arguments) {
    each_pair(arguments.span, arguments.out,
              [&](const Modulus &m, u32, u32 row, u64 place, u64 at) {
                  u128 first = 0, second = 0;
                  if (arguments.continues) {
                      const Pair before = load_pair(arguments.out + at);
                      first = before.first, second = before.second;
                  }
                  const u64 plain = static_cast<u64>(row) * kN + (place & (kN - 1));
#pragma unroll 4
                  for (u32 t = 0; t < arguments.terms; ++t) {
                      const Pair a = load_pair(arguments.a[t] + at);
                      const Pair b = load_pair(arguments.b[t] + plain);
                      first += static_cast<u128>(a.first) * b.first;
                      second += static_cast<u128>(a.second) * b.second;
                  }
                  return Pair{reduce_wide(first, m), reduce_wide(second, m)};
              });
}

// out[o] = sum_t a[t] weights[row][o][t] (+ out[o]), for kOutputs outputs of blockIdx.z at a time.
constexpr u32 kOutputs = 4;

struct CombineArguments {
    Span span;
    const u64 *weights;  // [rows][outputs][all_terms], from the first term on
    u64 *out;            // [outputs][component][rows][batch][N]
    u32 components, outputs, terms, all_terms, continues, unused;
    const u64 *a[kMostTerms];
};

TACIT_DEVICE void combine(const CombineArguments &arguments) {
    const Span &span = arguments.span;
    u64 place;
    if (!pair_place(span, place)) return;
    const u32 row = blockIdx.y % span.rows, start = blockIdx.z * kOutputs;
    const Modulus m = span.moduli[modulus_of(span.basis, row)];
    const u64 at = static_cast<u64>(blockIdx.y) * words_of_row(span) + place;
    const u64 output = static_cast<u64>(arguments.components) * span.rows * words_of_row(span);
    u128 first[kOutputs] = {}, second[kOutputs] = {};
    for (u32 t = 0; t < arguments.terms; ++t) {
        const Pair a = load_pair(arguments.a[t] + at);
#pragma unroll
        for (u32 o = 0; o < kOutputs; ++o) {
            if (start + o >= arguments.outputs) continue;
            const u64 weight = arguments.weights
                [(static_cast<u64>(row) * arguments.outputs + start + o) * arguments.all_terms + t];
            first[o] += static_cast<u128>(a.first) * weight;
            second[o] += static_cast<u128>(a.second) * weight;
        }
    }
#pragma unroll
    for (u32 o = 0; o < kOutputs; ++o) {
        if (start + o >= arguments.outputs) continue;
        u64 *out = arguments.out + (start + o) * output + at;
        if (arguments.continues) {
            const Pair before = load_pair(out);
            first[o] += before.first;
            second[o] += before.second;
        }
        store_pair(out, reduce_wide(first[o], m), reduce_wide(second[o], m));
    }
}

// Copy `batch` entries of each of the rows (blockIdx.y) between batches of other sizes.
struct CopyArguments {
    const u64 *source;
    u64 *target;
    u32 source_batch, source_entry, target_batch, target_entry, batch, unused;
};

TACIT_DEVICE void copy_entries(const CopyArguments &arguments) {
    const u64 place = 2 * (static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x);
    if (place >= static_cast<u64>(arguments.batch) * kN) return;
    const u64 row = blockIdx.y;
    const u64 from = (row * arguments.source_batch + arguments.source_entry) * kN + place;
    const u64 to = (row * arguments.target_batch + arguments.target_entry) * kN + place;
    const Pair words = load_pair(arguments.source + from);
    store_pair(arguments.target + to, words.first, words.second);
}
