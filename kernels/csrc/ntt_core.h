// The negacyclic NTT on vectors of A::lanes residues, for any arithmetic A.
//
// Forward: Cooley-Tukey, natural order in, bit-reversed out (Longa and Naehrig 2016); inverse:
// Gentleman-Sande. Depth first, so that blocks stay in cache; up to 2^max_radix_log values per
// lane are in registers for as many layers. The last 2 log2(lanes) layers work on a block of
// lanes^2 values in registers, transposed between its two halves.
//
// A gives load_in, load, store, store_out, ct, gs, mul (see avx512.cpp for the bounds).
// Everything is in an unnamed namespace: each instruction set has its own copy.
#pragma once
#include "modulus.h"

namespace tacit {
namespace {

#define TACIT_UNROLL _Pragma("GCC unroll 8")
#define TACIT_INLINE inline __attribute__((always_inline))

constexpr int log2_of(int x) { return x == 1 ? 0 : 1 + log2_of(x / 2); }

template <class A>
class Ntt {
    using V = typename A::V;
    static constexpr int kLanes = A::lanes;
    static constexpr int kLog = log2_of(kLanes);

  public:
    static void forward(const Modulus &m, u64 *x) {
        const A a(m);
        forward_block<true>(a, m, x, m.log_n, 1, 0);
    }

    static void inverse(const Modulus &m, u64 *x) {
        const A a(m);
        inverse_block<true>(a, m, x, m.log_n, 1, 0);
    }

  private:
    static constexpr size_t kAhead = 64;  // values from a load to the prefetch before it
    static TACIT_INLINE void prefetch(const u64 *p) { __builtin_prefetch(p); }
    static TACIT_INLINE void prefetch_roots(const u64 *p) {
        for (int i = 0; i < 2 * kLanes * (kLanes - 1); i += 8) prefetch(p + i);
    }

    // How many layers the next pass takes, if `left` remain above the register blocks.
    static int pass_layers(int left) {
        if (A::max_radix_log == 2) return left % 2 ? 1 : 2;
        return left == 1 ? 1 : (left == 2 || left == 4) ? 2 : 3;
    }

    template <int R, class Twiddle>
    static TACIT_INLINE void forward_layers(const A &a, V *v, const Twiddle &twiddle) {
        TACIT_UNROLL
        for (int layer = 0; layer < R; ++layer) {
            const int half = 1 << (R - 1 - layer);
            TACIT_UNROLL
            for (int k = 0; k < (1 << layer); ++k) {
                V w, companion;
                twiddle((1 << layer) - 1 + k, w, companion);
                TACIT_UNROLL
                for (int h = 0; h < half; ++h)
                    a.ct(v[2 * half * k + h], v[2 * half * k + half + h], w, companion);
            }
        }
    }

    template <int R, int Top, class Twiddle>
    static TACIT_INLINE void inverse_layers(const A &a, V *v, const Twiddle &twiddle) {
        TACIT_UNROLL
        for (int layer = R - 1; layer >= Top; --layer) {
            const int half = 1 << (R - 1 - layer);
            TACIT_UNROLL
            for (int k = 0; k < (1 << layer); ++k) {
                V w, companion;
                twiddle((1 << layer) - 1 + k, w, companion);
                TACIT_UNROLL
                for (int h = 0; h < half; ++h)
                    a.gs(v[2 * half * k + h], v[2 * half * k + half + h], w, companion);
            }
        }
    }

    // Root number `number` of a pass at block i of m: entry (m + i) 2^layer + k of the table.
    struct Roots {
        const u64 *table;
        size_t at;
        TACIT_INLINE void operator()(int number, V &w, V &companion) const {
            const int layer = number >= 3 ? 2 : number >= 1 ? 1 : 0;
            const u64 *pair = table + 2 * ((at << layer) + size_t(number + 1 - (1 << layer)));
            w = A::broadcast(pair[0]);
            companion = A::broadcast(pair[1]);
        }
    };

    // Roots that differ by lane, as build_tables arranges them.
    struct LaneRoots {
        const u64 *table;
        TACIT_INLINE void operator()(int number, V &w, V &companion) const {
            w = A::load_root(table + 2 * kLanes * number);
            companion = A::load_root(table + 2 * kLanes * number + kLanes);
        }
    };

    template <int R>
    struct Held {
        V w[(1 << R) - 1], companion[(1 << R) - 1];
        explicit TACIT_INLINE Held(const Roots &roots) {
            TACIT_UNROLL
            for (int i = 0; i < (1 << R) - 1; ++i) roots(i, w[i], companion[i]);
        }
        TACIT_INLINE void operator()(int number, V &x, V &y) const {
            x = w[number];
            y = companion[number];
        }
    };

    template <int R, bool First>
    static void forward_pass(const A &a, const u64 *roots, u64 *x, size_t t, size_t at) {
        const Held<R> twiddle(Roots{roots, at});
        for (size_t j = 0; j < t; j += kLanes) {
            V v[1 << R];
            if (First) {
                TACIT_UNROLL
                for (int k = 0; k < (1 << R); ++k) prefetch(x + k * t + j + kAhead);
            }
            TACIT_UNROLL
            for (int k = 0; k < (1 << R); ++k)
                v[k] = First ? a.load_in(x + k * t + j) : a.load(x + k * t + j);
            forward_layers<R>(a, v, twiddle);
            TACIT_UNROLL
            for (int k = 0; k < (1 << R); ++k) a.store(x + k * t + j, v[k]);
        }
    }

    template <int R, bool Last>
    static void inverse_pass(const A &a, const Modulus &m, u64 *x, size_t t, size_t at) {
        const Held<R> twiddle(Roots{m.inverse, at});
        for (size_t j = 0; j < t; j += kLanes) {
            V v[1 << R];
            TACIT_UNROLL
            for (int k = 0; k < (1 << R); ++k) v[k] = a.load(x + k * t + j);
            inverse_layers<R, Last ? 1 : 0>(a, v, twiddle);
            if (Last) {  // the top root's entry already holds the factor 1/N
                TACIT_UNROLL
                for (int h = 0; h < (1 << R) / 2; ++h)
                    a.gs_last(v[h], v[(1 << R) / 2 + h], twiddle.w[0], twiddle.companion[0]);
            }
            TACIT_UNROLL
            for (int k = 0; k < (1 << R); ++k) {
                if (Last)
                    a.store_out(x + k * t + j, v[k]);
                else
                    a.store(x + k * t + j, v[k]);
            }
        }
    }

    static void forward_registers(const A &a, const Modulus &m, u64 *x, size_t at) {
        V v[kLanes];
        TACIT_UNROLL
        for (int k = 0; k < kLanes; ++k) v[k] = a.load(x + k * kLanes);
        forward_layers<kLog>(a, v, Roots{m.forward, at});
        A::transpose(v);
        a.settle(v);
        const size_t block = at - ((size_t(1) << m.log_n) >> (2 * kLog));
        prefetch_roots(m.forward_base + (block + 2) * 2 * kLanes * (kLanes - 1));
        forward_layers<kLog>(a, v,
                             LaneRoots{m.forward_base + block * 2 * kLanes * (kLanes - 1)});
        A::transpose(v);
        TACIT_UNROLL
        for (int k = 0; k < kLanes; ++k) a.store_out(x + k * kLanes, v[k]);
    }

    static void inverse_registers(const A &a, const Modulus &m, u64 *x, size_t at) {
        V v[kLanes];
        TACIT_UNROLL
        for (int k = 0; k < kLanes; ++k) v[k] = a.load_in(x + k * kLanes);
        A::transpose(v);
        const size_t block = at - ((size_t(1) << m.log_n) >> (2 * kLog));
        prefetch_roots(m.inverse_base + (block + 2) * 2 * kLanes * (kLanes - 1));
        TACIT_UNROLL
        for (int k = 0; k < kLanes; k += 8 * 8 / kLanes / 8) prefetch(x + (2 * kLanes + k) * kLanes);
        inverse_layers<kLog, 0>(a, v,
                                LaneRoots{m.inverse_base + block * 2 * kLanes * (kLanes - 1)});
        A::transpose(v);
        a.settle(v);
        inverse_layers<kLog, 0>(a, v, Roots{m.inverse, at});
        TACIT_UNROLL
        for (int k = 0; k < kLanes; ++k) a.store(x + k * kLanes, v[k]);
    }

    // Block i of `blocks`, of 2^log values.
    template <bool First>
    static void forward_block(const A &a, const Modulus &m, u64 *x, int log, size_t blocks,
                              size_t i) {
        const int left = log - 2 * kLog;
        if (left == 0) return forward_registers(a, m, x, blocks + i);
        const int layers = pass_layers(left);
        const size_t t = size_t(1) << (log - layers);
        if (layers == 1)
            forward_pass<1, First>(a, m.forward, x, t, blocks + i);
        else if (layers == 2)
            forward_pass<2, First>(a, m.forward, x, t, blocks + i);
        else
            forward_pass<3, First>(a, m.forward, x, t, blocks + i);
        for (size_t k = 0; k < (size_t(1) << layers); ++k)
            forward_block<false>(a, m, x + k * t, log - layers, blocks << layers,
                                 (i << layers) + k);
    }

    template <bool Last>
    static void inverse_block(const A &a, const Modulus &m, u64 *x, int log, size_t blocks,
                              size_t i) {
        const int left = log - 2 * kLog;
        if (left == 0) return inverse_registers(a, m, x, blocks + i);
        const int layers = pass_layers(left);
        const size_t t = size_t(1) << (log - layers);
        for (size_t k = 0; k < (size_t(1) << layers); ++k)
            inverse_block<false>(a, m, x + k * t, log - layers, blocks << layers,
                                 (i << layers) + k);
        if (layers == 1)
            inverse_pass<1, Last>(a, m, x, t, blocks + i);
        else if (layers == 2)
            inverse_pass<2, Last>(a, m, x, t, blocks + i);
        else
            inverse_pass<3, Last>(a, m, x, t, blocks + i);
    }
};

}  // namespace
}  // namespace tacit
