// A ring: its primes with their tables, the kernels chosen for each, and threads.
#pragma once
#include <memory>
#include <vector>

#include "arena.h"
#include "modulus.h"
#include "pool.h"
#include "tacit_kernels.h"

namespace tacit {
// The eight orders that an automorphism in NTT form may give the positions of a block of eight.
void galois_orders(u64 element, u64 orders[8][8]);
}  // namespace tacit

struct tacit_ring {
    uint32_t log_n = 0;
    size_t n = 0;
    std::vector<tacit::Modulus> moduli;
    tacit::Arena tables;
    tacit::Permute permute = nullptr;
    std::unique_ptr<tacit::Pool> pool;

    const tacit::Modulus &modulus(const uint32_t *mods, uint32_t row) const {
        return moduli[mods ? mods[row] : row];
    }
    // Calls are cut into pieces, so that pointers per term fit on the stack.
    static constexpr uint32_t kMostTerms = 64;
};
