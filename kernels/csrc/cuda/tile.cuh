// The transform of a tile of 2^kLogTile values by a block of 2^(kLogTile - 4) threads: layers
// kFirst to kLast - 1 of the tile's kLogTile, 16 values per thread in registers, at most four
// layers per pass, one exchange through shared memory between passes.
//
// Layer l pairs positions 2^(kLogTile - l - 1) apart; the 2^l groups of layer l have the roots
// (base << l) + group of the bit-reversed table. A whole ring in one tile has base 1. Where the
// ring is larger than a tile, a tile of columns covers its first layers, base 1, and tile number t
// of the rows its last, base 2^(log N - kLogTile) + t.
#pragma once
#include "fields.cuh"

constexpr int kPerThread = 16;

// Sixteen words side by side, then one unused: threads of a warp meet no bank conflicts.
TACIT_DEVICE u32 padded(u32 place) {
    return place + (place >> 4);
}

// Where a thread's 16 values of one pass lie: 2^(4 - kLayers) groups of 2^kLayers, the values of a
// group 2^kStride apart.
template <int kLogTile, int kFirst, int kLayers>
struct Pass {
    static constexpr int kStride = kLogTile - kFirst - kLayers;
    static constexpr int kGroups = kPerThread >> kLayers;

    static TACIT_DEVICE u32 group(u32 thread, int u) {
        return thread + (static_cast<u32>(u) << (kLogTile - 4));
    }
    static TACIT_DEVICE u32 block_of(u32 group) { return group >> kStride; }
    static TACIT_DEVICE u32 start(u32 group) {
        return block_of(group) << (kLogTile - kFirst) | (group & ((1u << kStride) - 1));
    }
    // The word of shared memory of value e of the group that begins at `start`.
    static TACIT_DEVICE u32 word(u32 start, int e) {
        const u32 step = static_cast<u32>(e) << kStride;
        if constexpr (kStride >= 4) return padded(start) + step + (step >> 4);
        if constexpr (kStride + kLayers <= 4) return padded(start) + step;
        return padded(start | step);
    }
    // f(index of the value in registers, start of its group, e)
    template <class F>
    static TACIT_DEVICE void each(u32 thread, const F &f) {
#pragma unroll
        for (int u = 0; u < kGroups; ++u)
#pragma unroll
            for (int e = 0; e < 1 << kLayers; ++e)
                f((u << kLayers) + e, start(group(thread, u)), e);
    }
    // The same without the index, for long bodies: two at a time.
    template <class F>
    static TACIT_DEVICE void each_slowly(u32 thread, const F &f) {
        static_assert(kGroups == 1, "one group per thread");
#pragma unroll 2
        for (int e = 0; e < 1 << kLayers; ++e) f(start(thread), e);
    }
};

constexpr int passes(int layers) {
    return (layers + 3) / 4;
}
constexpr int pass_layers(int layers) {
    return (layers + passes(layers) - 1) / passes(layers);
}

TACIT_DEVICE Root load_root(const Root *place) {
    const Pair pair = load_constant(place);
    return Root{pair.first, pair.second};
}

// Bounds after `layers` layers forward, each value trimmed before if that would be too much.
template <class Field>
constexpr int bound_after(int bound, int layers) {
    return layers ? bound_after<Field>(Field::after_forward(bound), layers - 1) : bound;
}
template <class Field>
constexpr bool needs_trim(int bound, int layers) {
    return bound_after<Field>(bound, layers) > Field::kLimit;
}
template <class Field>
constexpr int bound_of_pass(int bound, int layers) {
    return bound_after<Field>(needs_trim<Field>(bound, layers) ? Field::kTrimmed : bound, layers);
}

template <class Field, int kLogTile, int kFirst, int kLayers, int kBound>
TACIT_DEVICE void forward_layers(const Field &field, typename Field::Value (&v)[kPerThread],
                                 const Root *roots, u32 base, u32 thread) {
    using P = Pass<kLogTile, kFirst, kLayers>;
    constexpr int kPairs = 1 << (kLayers - 1);
    constexpr bool kTrim = needs_trim<Field>(kBound, kLayers);
#pragma unroll
    for (int u = 0; u < P::kGroups; ++u) {
        const u32 parent = (base << kFirst) + P::block_of(P::group(thread, u));
        if constexpr (kTrim) {
#pragma unroll
            for (int e = 0; e < kPairs; ++e)  // what the first layer multiplies need not be small
                field.trim(v[(u << kLayers) + e]);
        }
#pragma unroll
        for (int j = 0; j < kLayers; ++j) {
            const Root *layer = roots + (parent << j);
            const int log_half = kLayers - 1 - j, half = 1 << log_half;
#pragma unroll
            for (int pair = 0; pair < kPairs; ++pair) {
                const Root root = load_root(layer + (pair >> log_half));
                const int x = (u << kLayers) + pair + (pair >> log_half << log_half);
                field.forward(v[x], v[x + half], root);
            }
        }
    }
}

template <class Field, int kLogTile, int kFirst, int kLayers>
TACIT_DEVICE void backward_layers(const Field &field, typename Field::Value (&v)[kPerThread],
                                  const Root *roots, u32 base, u32 thread, int initial) {
    using P = Pass<kLogTile, kFirst, kLayers>;
    constexpr int kPairs = 1 << (kLayers - 1);
#pragma unroll
    for (int u = 0; u < P::kGroups; ++u) {
        const u32 parent = (base << kFirst) + P::block_of(P::group(thread, u));
        int bound[1 << kLayers];
#pragma unroll
        for (int e = 0; e < 1 << kLayers; ++e) bound[e] = initial;
#pragma unroll
        for (int j = kLayers - 1; j >= 0; --j) {
            const Root *layer = roots + (parent << j);
            const int log_half = kLayers - 1 - j;
#pragma unroll
            for (int pair = 0; pair < kPairs; ++pair) {
                const Root root = load_root(layer + (pair >> log_half));
                const int x = pair + (pair >> log_half << log_half), y = x + (1 << log_half);
                auto &low = v[(u << kLayers) + x], &high = v[(u << kLayers) + y];
                if (2 * bound[y] > Field::kLimit) {  // both have the same bound
                    field.trim(low);
                    field.trim(high);
                    bound[x] = bound[y] = Field::kTrimmed;
                }
                field.backward(low, high, root, bound[y]);
                bound[y] = Field::kProduct;
                bound[x] *= 2;
            }
        }
#pragma unroll
        for (int e = 0; e < 1 << kLayers; ++e)
            if (bound[e] > Field::kTrimmed) field.trim(v[(u << kLayers) + e]);
    }
}

// Layers kFirst .. kLast - 1, of values below kBound; on return `v` holds the values at the places
// of the last pass.
template <class Field, int kLogTile, int kFirst, int kLast, int kBound>
TACIT_DEVICE void forward_passes(const Field &field, typename Field::Value (&v)[kPerThread],
                                 const Root *roots, u32 base, u64 *shared, u32 thread) {
    constexpr int kLayers = pass_layers(kLast - kFirst), kNext = kFirst + kLayers;
    using P = Pass<kLogTile, kFirst, kLayers>;
    forward_layers<Field, kLogTile, kFirst, kLayers, kBound>(field, v, roots, base, thread);
    if constexpr (kNext < kLast) {
        using Q = Pass<kLogTile, kNext, pass_layers(kLast - kNext)>;
        P::each(thread, [&](int at, u32 start, int e) {
            shared[P::word(start, e)] = field.to_stored(v[at]);
        });
        __syncthreads();
        Q::each(thread, [&](int at, u32 start, int e) {
            v[at] = field.from_stored(shared[Q::word(start, e)]);
        });
        constexpr int kAfter = bound_of_pass<Field>(kBound, kLayers);
        forward_passes<Field, kLogTile, kNext, kLast, kAfter>(field, v, roots, base, shared,
                                                              thread);
    }
}

// The same layers upwards, `v` being at the places of their last pass; on return at those of the
// first, trimmed. `initial` bounds what comes in.
template <class Field, int kLogTile, int kFirst, int kLast>
TACIT_DEVICE void backward_passes(const Field &field, typename Field::Value (&v)[kPerThread],
                                  const Root *roots, u32 base, u64 *shared, u32 thread,
                                  int initial) {
    constexpr int kLayers = pass_layers(kLast - kFirst), kNext = kFirst + kLayers;
    using P = Pass<kLogTile, kFirst, kLayers>;
    if constexpr (kNext < kLast) {
        using Q = Pass<kLogTile, kNext, pass_layers(kLast - kNext)>;
        backward_passes<Field, kLogTile, kNext, kLast>(field, v, roots, base, shared, thread,
                                                       initial);
        Q::each(thread, [&](int at, u32 start, int e) {
            shared[Q::word(start, e)] = field.to_stored(v[at]);
        });
        __syncthreads();
        P::each(thread, [&](int at, u32 start, int e) {
            v[at] = field.from_stored(shared[P::word(start, e)]);
        });
        initial = Field::kTrimmed;
    }
    backward_layers<Field, kLogTile, kFirst, kLayers>(field, v, roots, base, thread, initial);
}
