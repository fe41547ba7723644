// A few threads that share the rows of a call. One call at a time uses them; others, meanwhile,
// run on their callers' own threads.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace tacit {

class Pool {
  public:
    explicit Pool(uint32_t threads) {
        for (uint32_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    }
    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread &worker : workers_) worker.join();
    }
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    // Call f(i) for i in 0 .. count - 1, in any order, possibly at once.
    template <class F>
    void each(uint32_t count, const F &f) {
        std::unique_lock<std::mutex> turn(turn_, std::defer_lock);
        if (workers_.empty() || count < 2 || !turn.try_lock()) {
            for (uint32_t i = 0; i < count; ++i) f(i);
            return;
        }
        run([](const void *g, uint32_t i) { (*static_cast<const F *>(g))(i); }, &f, count);
    }

  private:
    using Call = void (*)(const void *, uint32_t);

    void run(Call call, const void *f, uint32_t count) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            call_ = call;
            argument_ = f;
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            busy_ = static_cast<uint32_t>(workers_.size());
            ++round_;
        }
        wake_.notify_all();
        take(call, f, count);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

    void take(Call call, const void *f, uint32_t count) {
        for (;;) {
            const uint32_t i = next_.fetch_add(1, std::memory_order_relaxed);
            if (i >= count) return;
            call(f, i);
        }
    }

    void work() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
            if (stopping_) return;
            seen = round_;
            const Call call = call_;
            const void *f = argument_;
            const uint32_t count = count_;
            lock.unlock();
            take(call, f, count);
            lock.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    std::atomic<uint32_t> next_{0};
    Call call_ = nullptr;
    const void *argument_ = nullptr;
    uint32_t count_ = 0, busy_ = 0;
    uint64_t round_ = 0;
    bool stopping_ = false;
};

}  // namespace tacit
