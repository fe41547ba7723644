// The negacyclic transforms: one kernel for rings that fit into a block's shared memory, two
// (columns and rows of the ring seen as a matrix) for larger ones.
#pragma once
#include "keyed.cuh"
#include "tile.cuh"

// One row of a launch: which modulus, and which rows of the operands, in rows of batch * N words.
// Two kernels meet at `middle`, whole rings do not use it.
struct NttRow {
    u32 modulus, source, middle, target, minuend, component, limb, turn;
};

struct NttArguments {
    const Modulus *moduli;
    const NttRow *rows;    // one per blockIdx.y
    const Root *factors;   // per row, as its modulus' transform wants it: inverse transforms
    const Factor *scales;  // per row: `divide`
    const u64 *source;
    u64 *middle;
    u64 *target;
    const u64 *minuend;      // `divide`: (minuend - transform) scale + plus + common
    const u64 *plus[3];      // by component: one component of rows `limb`, or null
    const u64 *common;       // rows `limb`, a batch of 1, or null
    u32 batch, per_block;    // a block serves `per_block` entries of the batch, blockIdx.z
    u32 last_modulus;        // `centre`: the sources' modulus
    u32 tables;              // different moduli among the rows: for the model of costs
    // Products with keys in the place of a minuend or a source: rows `minuend` or `source` over QP,
    // part `component`, moved by the automorphism of the row's turn.
    Keyed keyed;
    // Products of two ciphertexts: their first components, and words from one to the next; where
    // the last component of the product is written as it is made.
    const u64 *left, *right;
    u64 component_words;
    u64 *kept;
};

constexpr u32 kWhole = 1u << (kLogN - 4);  // threads of a block that holds a whole ring
constexpr int kLogTile = kLogN - 2 < 12 ? kLogN - 2 : 12;
constexpr int kColumnLayers = (kLogN + 1) / 2;
constexpr u32 kTileThreads = 1u << (kLogTile - 4);

// Tiles: which layers, of which part of the ring. Value e of a group that begins at `place` lies
// `step<stride>(e)` after position(place).
struct WholeTile {
    static constexpr int kLog = kLogN, kFirst = 0, kLast = kLogN;
    static TACIT_DEVICE u32 base() { return 1; }
    static TACIT_DEVICE u64 position(u32 place) { return place; }
    static constexpr TACIT_DEVICE u64 step(int stride, int e) { return static_cast<u64>(e) << stride; }
};

struct ColumnTile {
    static constexpr int kLog = kLogTile, kFirst = 0, kLast = kColumnLayers;
    static constexpr int kLogWidth = kLogTile - kColumnLayers;
    static TACIT_DEVICE u32 base() { return 1; }
    static TACIT_DEVICE u64 position(u32 place) {
        const u32 column = blockIdx.x << kLogWidth | (place & ((1u << kLogWidth) - 1));
        return place >> kLogWidth << (kLogN - kColumnLayers) | column;
    }
    static constexpr TACIT_DEVICE u64 step(int stride, int e) {
        return static_cast<u64>(e) << (stride - kLogWidth + kLogN - kColumnLayers);
    }
};

struct RowTile {
    static constexpr int kLog = kLogTile, kLast = kLogTile;
    static constexpr int kFirst = kLogTile - (kLogN - kColumnLayers);
    static TACIT_DEVICE u32 base() { return (1u << (kLogN - kLogTile)) + blockIdx.x; }
    static TACIT_DEVICE u64 position(u32 place) { return blockIdx.x << kLogTile | place; }
    static constexpr TACIT_DEVICE u64 step(int stride, int e) { return static_cast<u64>(e) << stride; }
};

constexpr int last_pass_layers(int layers) {
    return layers <= 4 ? layers : last_pass_layers(layers - pass_layers(layers));
}
template <class Tile>
using FirstPass = Pass<Tile::kLog, Tile::kFirst, pass_layers(Tile::kLast - Tile::kFirst)>;
template <class Tile>
using LastPass = Pass<Tile::kLog, Tile::kLast - last_pass_layers(Tile::kLast - Tile::kFirst),
                      last_pass_layers(Tile::kLast - Tile::kFirst)>;
// Neighbouring threads, neighbouring places: each thread holds values 2^(log tile - 4) apart.
template <class Tile>
using InOrder = Pass<Tile::kLog, 0, 4>;

template <class Tile, class P>
TACIT_DEVICE u64 position(u32 start, int e) {
    return Tile::position(start) + Tile::step(P::kStride, e);
}

// Forward, of values below kBound: `load(position)`, results to `store(position, value)`; kLong:
// one of them is too long to be repeated for each value.
template <class Field, class Tile, int kBound, bool kLong, class Load, class Store>
TACIT_DEVICE void forward_tile(const Field &field, const Root *roots, u64 *shared,
                               const Load &load, const Store &store) {
    using First = FirstPass<Tile>;
    using Last = LastPass<Tile>;
    typename Field::Value v[kPerThread];
    First::each(threadIdx.x, [&](int at, u32 start, int e) {
        v[at] = load(position<Tile, First>(start, e));
    });
    forward_passes<Field, Tile::kLog, Tile::kFirst, Tile::kLast, kBound>(
        field, v, opaque(roots), Tile::base(), shared, threadIdx.x);
    if constexpr (Tile::kLast == Tile::kLog) {  // places are neighbours within a thread: exchange
        using Order = InOrder<Tile>;
        Last::each(threadIdx.x, [&](int at, u32 start, int e) {
            shared[Last::word(start, e)] = field.to_stored(v[at]);
        });
        __syncthreads();
        const auto put = [&](u32 start, int e) {
            store(position<Tile, Order>(start, e), field.from_stored(shared[Order::word(start, e)]));
        };
        if constexpr (kLong)
            Order::each_slowly(threadIdx.x, put);
        else
            Order::each(threadIdx.x, [&](int, u32 start, int e) { put(start, e); });
    } else {
        Last::each(threadIdx.x, [&](int at, u32 start, int e) {
            store(position<Tile, Last>(start, e), v[at]);
        });
    }
    __syncthreads();  // shared memory serves the next entry of the batch
}

// Inverse; `initial` bounds what `load` gives. Results are trimmed.
template <class Field, class Tile, bool kLong, class Load, class Store>
TACIT_DEVICE void backward_tile(const Field &field, const Root *roots, u64 *shared, int initial,
                                const Load &load, const Store &store) {
    using First = FirstPass<Tile>;
    using Last = LastPass<Tile>;
    typename Field::Value v[kPerThread];
    if constexpr (Tile::kLast == Tile::kLog) {
        using Order = InOrder<Tile>;
        const auto take = [&](u32 start, int e) {
            shared[Order::word(start, e)] =
                field.to_stored(load(position<Tile, Order>(start, e)));
        };
        if constexpr (kLong)
            Order::each_slowly(threadIdx.x, take);
        else
            Order::each(threadIdx.x, [&](int, u32 start, int e) { take(start, e); });
        __syncthreads();
        Last::each(threadIdx.x, [&](int at, u32 start, int e) {
            v[at] = field.from_stored(shared[Last::word(start, e)]);
        });
    } else {
        Last::each(threadIdx.x, [&](int at, u32 start, int e) {
            v[at] = load(position<Tile, Last>(start, e));
        });
    }
    backward_passes<Field, Tile::kLog, Tile::kFirst, Tile::kLast>(
        field, v, opaque(roots), Tile::base(), shared, threadIdx.x, initial);
    First::each(threadIdx.x, [&](int at, u32 start, int e) {
        store(position<Tile, First>(start, e), v[at]);
    });
    __syncthreads();
}

// What a block works on; `f(field, row, entry)` for each entry of its batch.
struct Task {
    const NttArguments &arguments;
    const NttRow row;
    const Modulus modulus;

    explicit TACIT_DEVICE Task(const NttArguments &a)
        : arguments(a), row(a.rows[blockIdx.y]), modulus(a.moduli[row.modulus]) {}

    template <class Word>
    TACIT_DEVICE Word *at(Word *rows, u32 index, u32 entry) const {
        return rows + (static_cast<u64>(index) * arguments.batch + entry) * kN;
    }
    TACIT_DEVICE const u64 *source(u32 entry) const {
        return at(arguments.source, row.source, entry);
    }
    TACIT_DEVICE u64 *middle(u32 entry) const { return at(arguments.middle, row.middle, entry); }
    TACIT_DEVICE u64 *target(u32 entry) const { return at(arguments.target, row.target, entry); }
    TACIT_DEVICE const u64 *minuend(u32 entry) const {
        return at(arguments.minuend, row.minuend, entry);
    }
    template <class F>
    TACIT_DEVICE void each_entry(const F &f) const {
        const u32 first = blockIdx.z * arguments.per_block;
        const u32 after = first + arguments.per_block;
        const u32 end = after < arguments.batch ? after : arguments.batch;
        for (u32 entry = first; entry < end; ++entry) f(entry);
    }
    // The field of this block's modulus: all its threads agree.
    template <class F>
    TACIT_DEVICE void in_field(const F &f) const {
#if TACIT_DOUBLES
        if (modulus.doubles) {
            f(Reals(modulus));
            return;
        }
#endif
        f(Integers(modulus));
    }
};

// The residue modulo `m` of a centred residue modulo `last`.
TACIT_DEVICE u64 centred(u64 x, u64 last, const Modulus &m) {
    const bool negative = x > last / 2;
    const u64 magnitude = reduce(negative ? last - x : x, m);
    return negative ? negate_mod(magnitude, m.q) : magnitude;
}

// Residues; residues modulo another prime, centred; products with keys; a1 b1 of two ciphertexts.
enum class From { kResidues, kCentred, kKeyed, kProduct };
// Residues; subtracted from others, scaled, and added to; subtracted from products with keys.
enum class To { kResidues, kDivided, kKeyed };

template <From kFrom>
struct Source {
    const Task &task;
    const u64 *words;  // of the row; the key
    u64 last;
    u32 entry;
    TACIT_DEVICE Source(const Task &t, u32 e) : task(t), words(t.source(e)), last(0), entry(e) {
        const NttArguments &a = t.arguments;
        if constexpr (kFrom == From::kCentred) last = a.moduli[a.last_modulus].q;
        if constexpr (kFrom == From::kKeyed) words = a.keyed.key_of(t.row.turn, e);
    }
    TACIT_DEVICE u64 operator()(u64 place) const {
        const NttArguments &a = task.arguments;
        if constexpr (kFrom == From::kCentred) return centred(words[place], last, task.modulus);
        if constexpr (kFrom == From::kKeyed) {
            const u32 from = moved_from(static_cast<u32>(place), a.keyed.turns[task.row.turn].element);
            const NttRow &row = task.row;
            return a.keyed.value(words, a.keyed.turns[row.turn], row.component, row.source, entry,
                                 from, task.modulus);
        }
        if constexpr (kFrom == From::kProduct) {
            const u64 at = (static_cast<u64>(task.row.source) * a.batch + entry) * kN + place;
            const u64 second = a.component_words + at;
            const u64 r = product_sum(a.left[second], a.right[second], 0, 0, task.modulus);
            a.kept[at] = r;
            return r;
        }
        return words[place];
    }
};

template <To kTo>
struct Target {
    const Task &task;
    u64 *words;
    const u64 *minuend, *plus, *common;  // minuend: the row, or the key
    Factor scale;
    u32 entry;
    TACIT_DEVICE Target(const Task &t, u32 e)
        : task(t), words(t.target(e)), minuend(nullptr), plus(nullptr), common(nullptr),
          scale{0, 0}, entry(e) {
        if constexpr (kTo != To::kResidues) {
            const NttArguments &a = t.arguments;
            minuend = kTo == To::kKeyed ? a.keyed.key_of(t.row.turn, e) : t.minuend(e);
            const u64 *added = a.plus[t.row.component];
            plus = added ? t.at(added, t.row.limb, e) : nullptr;
            common = a.common ? a.common + static_cast<u64>(t.row.limb) * kN : nullptr;
            scale = a.scales[blockIdx.y];
        }
    }
    // a0 b0, or a0 b1 + a1 b0.
    TACIT_DEVICE u64 tensor(u32 place) const {
        const NttArguments &a = task.arguments;
        const u64 at = (static_cast<u64>(task.row.limb) * a.batch + entry) * kN + place;
        const u64 second = at + a.component_words;
        const Modulus &m = task.modulus;
        if (task.row.component == 0) return product_sum(a.left[at], a.right[at], 0, 0, m);
        return product_sum(a.left[at], a.right[second], a.left[second], a.right[at], m);
    }
    TACIT_DEVICE void operator()(u64 place, u64 residue) const {
        if constexpr (kTo == To::kResidues) {
            words[place] = residue;
            return;
        }
        const u64 q = task.modulus.q;
        u32 from = static_cast<u32>(place);
        u64 r;
        if constexpr (kTo == To::kKeyed) {
            const NttRow &row = task.row;
            const Keyed &keyed = task.arguments.keyed;
            from = moved_from(from, keyed.turns[row.turn].element);
            r = keyed.value(minuend, keyed.turns[row.turn], row.component, row.minuend, entry, from,
                            task.modulus);
        } else {
            r = minuend[from];
        }
        r = multiply(r + q - residue, scale, q);
        // Opaque, lest the compiler makes a copy of all this for each case.
        if (const u64 *added = opaque(plus)) r = add_mod(r, added[from], q);
        if constexpr (kTo == To::kKeyed)
            if (opaque(task.arguments.left)) r = add_mod(r, tensor(from), q);
        if (const u64 *added = opaque(common)) r = add_mod(r, added[place], q);
        words[place] = r;
    }
};

template <From kFrom, To kTo>
TACIT_DEVICE void forward_whole(const NttArguments &arguments, u64 *shared) {
    const Task task(arguments);
    task.in_field([&](const auto &field) {
        using Field = typename FieldOf<decltype(field)>::Type;
        task.each_entry([&](u32 entry) {
            const Source<kFrom> source(task, entry);
            const Target<kTo> target(task, entry);
            forward_tile<Field, WholeTile, Field::kResidue, kTo == To::kKeyed>(
                field, task.modulus.forward, shared,
                [&](u64 place) { return field.from_residue(source(place)); },
                [&](u64 place, auto v) { target(place, field.residue(v)); });
        });
    });
}

template <From kFrom>
TACIT_DEVICE void forward_columns(const NttArguments &arguments, u64 *shared) {
    const Task task(arguments);
    task.in_field([&](const auto &field) {
        using Field = typename FieldOf<decltype(field)>::Type;
        task.each_entry([&](u32 entry) {
            const Source<kFrom> source(task, entry);
            u64 *middle = task.middle(entry);
            forward_tile<Field, ColumnTile, Field::kResidue, false>(
                field, task.modulus.forward, shared,
                [&](u64 place) { return field.from_residue(source(place)); },
                [&](u64 place, auto v) { middle[place] = field.to_stored(v); });
        });
    });
}

template <To kTo>
TACIT_DEVICE void forward_rows(const NttArguments &arguments, u64 *shared) {
    const Task task(arguments);
    task.in_field([&](const auto &field) {
        using Field = typename FieldOf<decltype(field)>::Type;
        task.each_entry([&](u32 entry) {
            const u64 *source = task.middle(entry);
            const Target<kTo> target(task, entry);
            forward_tile<Field, RowTile, Field::kTrimmed, kTo == To::kKeyed>(
                field, task.modulus.forward, shared,
                [&](u64 place) {
                    auto v = field.from_stored(source[place]);
                    field.trim(v);
                    return v;
                },
                [&](u64 place, auto v) { target(place, field.residue(v)); });
        });
    });
}

template <From kFrom>
TACIT_DEVICE void backward_whole(const NttArguments &arguments, u64 *shared) {
    const Task task(arguments);
    const Root factor = load_root(arguments.factors + blockIdx.y);
    task.in_field([&](const auto &field) {
        using Field = typename FieldOf<decltype(field)>::Type;
        task.each_entry([&](u32 entry) {
            const Source<kFrom> source(task, entry);
            u64 *target = task.target(entry);
            backward_tile<Field, WholeTile, kFrom == From::kKeyed>(
                field, task.modulus.backward, shared, Field::kResidue,
                [&](u64 place) { return field.from_residue(source(place)); },
                [&](u64 place, auto v) { target[place] = field.scaled(v, factor); });
        });
    });
}

template <From kFrom>
TACIT_DEVICE void backward_rows(const NttArguments &arguments, u64 *shared) {
    const Task task(arguments);
    task.in_field([&](const auto &field) {
        using Field = typename FieldOf<decltype(field)>::Type;
        task.each_entry([&](u32 entry) {
            const Source<kFrom> source(task, entry);
            u64 *middle = task.middle(entry);
            backward_tile<Field, RowTile, kFrom == From::kKeyed>(
                field, task.modulus.backward, shared, Field::kResidue,
                [&](u64 place) { return field.from_residue(source(place)); },
                [&](u64 place, auto v) { middle[place] = field.to_stored(v); });
        });
    });
}

TACIT_DEVICE void backward_columns(const NttArguments &arguments, u64 *shared) {
    const Task task(arguments);
    const Root factor = load_root(arguments.factors + blockIdx.y);
    task.in_field([&](const auto &field) {
        using Field = typename FieldOf<decltype(field)>::Type;
        task.each_entry([&](u32 entry) {
            const u64 *source = task.middle(entry);
            u64 *target = task.target(entry);
            backward_tile<Field, ColumnTile, false>(
                field, task.modulus.backward, shared, Field::kTrimmed,
                [&](u64 place) { return field.from_stored(source[place]); },
                [&](u64 place, auto v) { target[place] = field.scaled(v, factor); });
        });
    });
}
