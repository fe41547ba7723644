// Memory for tables: large blocks, on huge pages where the system gives them, freed together.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace tacit {

class Arena {
  public:
    // `words` zeroed words, on a cache line of their own.
    uint64_t *allocate(size_t words) {
        const size_t bytes = (words * 8 + kLine - 1) / kLine * kLine;
        if (bytes > left_) add_block(bytes);
        uint64_t *result = reinterpret_cast<uint64_t *>(next_);
        next_ += bytes;
        left_ -= bytes;
        return result;
    }

  private:
    static constexpr size_t kLine = 64, kPage = size_t(2) << 20;

    void add_block(size_t bytes) {
        const size_t size = (bytes + kPage - 1) / kPage * kPage;
        void *block = std::aligned_alloc(kPage, size);
        if (!block) throw std::bad_alloc();
        blocks_.emplace_back(block, &std::free);
        madvise(block, size, MADV_HUGEPAGE);  // a wish: failing is fine
        __builtin_memset(block, 0, size);
        next_ = static_cast<char *>(block);
        left_ = size;
    }

    std::vector<std::unique_ptr<void, decltype(&std::free)>> blocks_;
    char *next_ = nullptr;
    size_t left_ = 0;
};

}  // namespace tacit
