// Two rates that bound everything else: wide multiplications, and copies of device memory.
#include "platform.cuh"

struct RateArguments {
    const u64 *source;
    u64 *target;
    u64 words;
    u32 rounds, seed;
};

// Eight independent chains per thread; each round is eight multiplications 32 x 32 + 64.
TACIT_KERNEL(tacit_wide_multiply, RateArguments) {
    u64 sums[8];
    u32 factor = arguments.seed | 1;
    for (int i = 0; i < 8; ++i) sums[i] = threadIdx.x + i;
    for (u32 round = 0; round < arguments.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            sums[i] = static_cast<u64>(static_cast<u32>(sums[i])) * factor + sums[i];
    }
    u64 total = 0;
    for (int i = 0; i < 8; ++i) total ^= sums[i];
    if (total == 1) arguments.target[0] = total;  // never known before it runs
}

TACIT_KERNEL(tacit_copy, RateArguments) {
    const u64 place = 2 * (static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x);
    if (place >= arguments.words) return;
    const Pair words = load_pair(arguments.source + place);
    store_pair(arguments.target + place, words.first, words.second);
}
