// A block of CUDA threads as fibres: __syncthreads is a yield, and between two barriers the fibres
// run one after the other in an order drawn from a seed, so that a missing barrier shows.
//
// Blocks come in random order as well, and shared memory is full of noise at their beginning.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace shim {

struct Index {
    unsigned x, y, z;
};

using Body = void (*)(const void *arguments);

struct Block {
    Index thread, place, size;
    void *shared;
};
inline Block block;

struct Kernel {
    size_t argument_bytes;
    Body body;
};

inline std::map<std::string, Kernel> &registry() {
    static std::map<std::string, Kernel> kernels;
    return kernels;
}

struct Entry {
    Entry(const char *name, size_t bytes, Body body) { registry()[name] = {bytes, body}; }
};

// Barriers that were reached, and those to leave out: tests of the shim itself.
using Site = std::pair<std::string, int>;
inline std::set<Site> reached, ignored;

enum class Outcome { kFine, kDivergence, kOverflow };

#ifdef __x86_64__
extern "C" void tacit_shim_switch(void **save, void *load);
// Saves what a called function must keep, changes stacks, and restores it.
asm(R"(
.text
.weak tacit_shim_switch
tacit_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

struct Context {
    void *stack_pointer = nullptr;
    void begin(char *stack, size_t bytes, void (*start)()) {
        auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15);
        auto words = reinterpret_cast<void **>(top) - 8;  // start finds the stack as after a call
        std::fill(words, words + 8, nullptr);
        words[6] = reinterpret_cast<void *>(start);
        stack_pointer = words;
    }
    static void change(Context &from, Context &to) {
        tacit_shim_switch(&from.stack_pointer, to.stack_pointer);
    }
};
#else
struct Context {
    ucontext_t held;
    void begin(char *stack, size_t bytes, void (*start)()) {
        getcontext(&held);
        held.uc_stack.ss_sp = stack;
        held.uc_stack.ss_size = bytes;
        held.uc_link = nullptr;
        makecontext(&held, start, 0);
    }
    static void change(Context &from, Context &to) { swapcontext(&from.held, &to.held); }
};
#endif

constexpr size_t kStackBytes = size_t(1) << 16;
constexpr unsigned kMostThreads = 1024;
constexpr uint64_t kCanary = 0x5ca1ab1e0ddba11;

struct Scheduler {
    Context main;
    std::vector<Context> fibres = std::vector<Context>(kMostThreads);
    std::vector<bool> done = std::vector<bool>(kMostThreads);
    char *stacks = nullptr;
    Body body = nullptr;
    const void *arguments = nullptr;
    unsigned current = 0;

    Scheduler() {
        void *made = mmap(nullptr, kStackBytes * kMostThreads, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        stacks = made == MAP_FAILED ? nullptr : static_cast<char *>(made);
    }
    ~Scheduler() {
        if (stacks) munmap(stacks, kStackBytes * kMostThreads);
    }
    char *stack(unsigned thread) const { return stacks + thread * kStackBytes; }
};
inline Scheduler scheduler;

inline void yield() {
    Context::change(scheduler.fibres[scheduler.current], scheduler.main);
}

inline void fibre_main() {
    scheduler.body(scheduler.arguments);
    scheduler.done[scheduler.current] = true;
    yield();
}

inline void barrier(const char *file, int line) {
    const char *name = std::strrchr(file, '/');
    const Site site(name ? name + 1 : file, line);
    reached.insert(site);
    if (!ignored.count(site)) yield();
}

inline Outcome run_block(std::mt19937_64 &random) {
    const unsigned threads = block.size.x;
    std::vector<unsigned> waiting(threads);
    for (unsigned t = 0; t < threads; ++t) {
        waiting[t] = t;
        scheduler.done[t] = false;
        std::memcpy(scheduler.stack(t), &kCanary, sizeof kCanary);
        scheduler.fibres[t].begin(scheduler.stack(t), kStackBytes, fibre_main);
    }
    while (!waiting.empty()) {
        std::shuffle(waiting.begin(), waiting.end(), random);
        for (const unsigned t : waiting) {
            scheduler.current = t;
            block.thread = Index{t, 0, 0};
            Context::change(scheduler.main, scheduler.fibres[t]);
            if (std::memcmp(scheduler.stack(t), &kCanary, sizeof kCanary))
                return Outcome::kOverflow;
        }
        const auto ended = [](unsigned t) { return bool(scheduler.done[t]); };
        const auto finished = std::count_if(waiting.begin(), waiting.end(), ended);
        if (finished && static_cast<size_t>(finished) < waiting.size())
            return Outcome::kDivergence;  // some ended while others wait at a barrier
        if (finished) waiting.clear();
    }
    return Outcome::kFine;
}

inline Outcome run_grid(Body body, const void *arguments, Index grid, Index size,
                        size_t shared_bytes, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<uint64_t> shared(shared_bytes / 8 + 2);
    std::vector<Index> places;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) places.push_back({x, y, z});
    std::shuffle(places.begin(), places.end(), random);
    scheduler.body = body;
    scheduler.arguments = arguments;
    block.size = size;
    auto begin = reinterpret_cast<uintptr_t>(shared.data());
    block.shared = reinterpret_cast<void *>((begin + 15) & ~uintptr_t(15));
    for (const Index &place : places) {
        if (shared_bytes) std::fill(shared.begin(), shared.end(), random());
        block.place = place;
        const Outcome outcome = run_block(random);
        if (outcome != Outcome::kFine) return outcome;
    }
    return Outcome::kFine;
}

}  // namespace shim

extern "C" {

// 0 if all is well, 1 for a barrier that some threads miss, 2 for too deep a stack, 3 for an
// unknown kernel.
inline __attribute__((used, visibility("default"))) int tacit_shim_launch(
    const char *name, const void *arguments, const unsigned *grid, const unsigned *size,
    size_t shared_bytes, uint64_t seed) {
    const auto found = shim::registry().find(name);
    if (found == shim::registry().end()) return 3;
    return static_cast<int>(shim::run_grid(found->second.body, arguments, {grid[0], grid[1], grid[2]},
                                           {size[0], size[1], size[2]}, shared_bytes, seed));
}

// Bytes of a kernel's arguments; 0 if there is no such kernel.
inline __attribute__((used, visibility("default"))) size_t tacit_shim_size(const char *name) {
    const auto found = shim::registry().find(name);
    return found == shim::registry().end() ? 0 : found->second.argument_bytes;
}

// Barriers reached so far as lines "file:number".
inline __attribute__((used, visibility("default"))) size_t tacit_shim_barriers(char *text,
                                                                              size_t bytes) {
    std::string lines;
    for (const auto &[file, line] : shim::reached)
        lines += file + ":" + std::to_string(line) + "\n";
    if (lines.size() < bytes) std::memcpy(text, lines.c_str(), lines.size() + 1);
    return lines.size();
}

// Act as if a barrier were not there; none with line 0.
inline __attribute__((used, visibility("default"))) void tacit_shim_ignore(const char *file,
                                                                          int line) {
    shim::ignored.clear();
    if (line) shim::ignored.insert({file, line});
}
}
