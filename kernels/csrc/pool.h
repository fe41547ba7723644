// Threads that share the pieces of calls. Several callers may be at work at once: a call gets help
// from idle threads as long as callers and helpers together are no more than the pool's size. So a
// single caller has all threads, and as many callers as threads have one each, their own.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace tacit {

class Pool {
  public:
    explicit Pool(uint32_t threads) : threads_(threads) {
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

    uint32_t threads() const { return threads_; }

    // Call f(i, slot) for i in 0 .. count - 1, in any order, possibly at once. Calls at work at the
    // same time have different slots below threads(). `words`: reads and writes of one i, roughly;
    // a transform counts kTransform times its length. Small calls are not shared.
    template <class F>
    void each_slot(uint32_t count, size_t words, const F &f) {
        const Caller caller(callers_);
        if (workers_.empty() || count < 2 || count * words < kWorthSharing ||
            callers_.load(std::memory_order_relaxed) >= threads_) {
            for (uint32_t i = 0; i < count; ++i) f(i, 0);
            return;
        }
        Job job([](const void *g, uint32_t i, uint32_t slot) {
            (*static_cast<const F *>(g))(i, slot);
        }, &f, count);
        run(job);
    }

    template <class F>
    void each(uint32_t count, size_t words, const F &f) {
        each_slot(count, words, [&f](uint32_t i, uint32_t) { f(i); });
    }

    static constexpr size_t kTransform = 6;

  private:
    // About 50 microseconds: several times what it takes to wake a thread.
    static constexpr size_t kWorthSharing = size_t(1) << 17;

    using Call = void (*)(const void *, uint32_t, uint32_t);

    struct Caller {
        explicit Caller(std::atomic<uint32_t> &count) : count_(count) { ++count_; }
        ~Caller() { --count_; }
        std::atomic<uint32_t> &count_;
    };

    struct Job {
        Job(Call c, const void *f, uint32_t n) : call(c), argument(f), count(n) {}
        void take(uint32_t slot) {
            for (uint32_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
                call(argument, i, slot);
        }
        bool open() const { return next.load(std::memory_order_relaxed) < count; }
        const Call call;
        const void *const argument;
        const uint32_t count;
        std::atomic<uint32_t> next{0};
        uint32_t joined = 0, helpers = 0;  // ever, and at the moment
    };

    void run(Job &job) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            jobs_.push_back(&job);
        }
        if (workers_.size() == 1 || job.count == 2)
            wake_.notify_one();
        else
            wake_.notify_all();
        job.take(0);
        std::unique_lock<std::mutex> lock(mutex_);
        jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
        done_.wait(lock, [&job] { return job.helpers == 0; });
    }

    // A job that needs help, if one more thread may be at work.
    Job *next_job() const {
        if (callers_.load(std::memory_order_relaxed) + helping_ >= threads_) return nullptr;
        for (Job *job : jobs_)
            if (job->open()) return job;
        return nullptr;
    }

    void work() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            Job *job = nullptr;
            wake_.wait(lock, [&] { return stopping_ || (job = next_job()); });
            if (stopping_) return;
            ++helping_;
            ++job->helpers;
            const uint32_t slot = ++job->joined;  // a thread joins a job once: it leaves it empty
            lock.unlock();
            job->take(slot);
            lock.lock();
            --helping_;
            if (--job->helpers == 0) done_.notify_all();
        }
    }

    const uint32_t threads_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    std::vector<Job *> jobs_;
    std::atomic<uint32_t> callers_{0};
    uint32_t helping_ = 0;
    bool stopping_ = false;
};

}  // namespace tacit
