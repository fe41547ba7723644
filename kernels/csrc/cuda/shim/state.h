// What the simulated driver remembers: memory with guards, streams whose copies come late, failures
// that were asked for.
#pragma once
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Result : int {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kNoDevice = 100,
    kInvalidImage = 200,
    kInvalidHandle = 400,
    kNotFound = 500,
    kIllegalAddress = 700,
    kLaunchFailed = 719,
    kCaptureInvalid = 901,
};

constexpr size_t kGuard = 4096;
constexpr unsigned char kGuardByte = 0xb5;

using Work = std::function<int()>;

struct Stream {
    bool capturing = false;
    std::vector<Work> captured, waiting;  // copies that were asked for
};
struct Graph {
    std::vector<Work> work;
};
struct Module {
    void *library = nullptr;
    int (*launch)(const char *, const void *, const unsigned *, const unsigned *, size_t,
                  uint64_t) = nullptr;
    size_t (*size)(const char *) = nullptr;  // of a kernel's arguments, 0 without a kernel
};
struct Function {
    Module *module;
    std::string name;
    size_t shared_limit = 48 * 1024;
};
struct Event {
    std::chrono::steady_clock::time_point at;
};

struct Driver {
    std::recursive_mutex lock;
    std::map<uint64_t, size_t> blocks;  // device memory by address
    std::map<uint64_t, size_t> foreign;  // memory of others that counts as device memory
    std::set<Stream *> streams;
    size_t limit = size_t(8) << 30, used = 0, peak = 0;
    uint64_t seed = 1, launches = 0, graph_launches = 0;
    std::mt19937_64 noise{7};
    std::string failing;
    long countdown = 0;
    int failure = 0;
    int sticky = 0;  // a lost device answers so to everything
    bool initialized = false;
    int compute = 90, version = 13000, multiprocessors = 132;
};
Driver driver;

int fault(const char *function) {
    if (driver.sticky) return driver.sticky;
    if (driver.failing != function || --driver.countdown > 0) return kSuccess;
    driver.failing.clear();
    if (driver.failure >= kIllegalAddress) driver.sticky = driver.failure;
    return driver.failure;
}

#define ENTER(name)                                          \
    const std::lock_guard<std::recursive_mutex> held(driver.lock); \
    if (const int failed = fault(name)) return failed

int flush(Stream *stream) {
    std::vector<Work> waiting;
    waiting.swap(stream->waiting);
    for (const Work &work : waiting)
        if (const int failed = work()) return failed;
    return kSuccess;
}

int flush_all() {
    for (Stream *stream : driver.streams)
        if (const int failed = flush(stream)) return failed;
    return kSuccess;
}

int perform(Stream *stream, Work work, bool late = false) {
    if (stream && stream->capturing) {
        stream->captured.push_back(std::move(work));
        return kSuccess;
    }
    if (stream && late) {
        stream->waiting.push_back(std::move(work));
        return kSuccess;
    }
    if (stream)
        if (const int failed = flush(stream)) return failed;
    return work();
}

bool guards_hold() {
    static const std::vector<unsigned char> guard(kGuard, kGuardByte);
    for (const auto &[address, bytes] : driver.blocks) {
        const auto *begin = reinterpret_cast<const unsigned char *>(address);
        if (std::memcmp(begin - kGuard, guard.data(), kGuard) ||
            std::memcmp(begin + bytes, guard.data(), kGuard))
            return false;
    }
    return true;
}

int checked() {
    if (guards_hold()) return kSuccess;
    driver.sticky = kIllegalAddress;
    return kIllegalAddress;
}

bool within(const std::map<uint64_t, size_t> &blocks, uint64_t address, size_t bytes) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return false;
    const auto &[begin, size] = *--after;
    return address >= begin && address + bytes <= begin + size;
}

// Whether [address, address + bytes) lies in one allocation.
bool owned(uint64_t address, size_t bytes) {
    return within(driver.blocks, address, bytes) || within(driver.foreign, address, bytes);
}

void *aligned(std::vector<uint64_t> &words) {
    return reinterpret_cast<void *>((reinterpret_cast<uint64_t>(words.data()) + 15) & ~uint64_t(15));
}

int copy(Stream *stream, void *target, const void *source, size_t bytes) {
    return perform(stream, [=] {
        std::memmove(target, source, bytes);
        return int(kSuccess);
    }, true);
}

}  // namespace
