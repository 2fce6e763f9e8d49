#include "base/thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

namespace quancrypt {
namespace {

constexpr std::size_t kMaxThreads = 1024;

struct Job {
  std::size_t count = 0;
  const ParallelBody* body = nullptr;
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex error_mutex;

  void work(std::size_t worker) {
    for (;;) {
      const std::size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count || failed.load(std::memory_order_relaxed)) return;
      try {
        (*body)(index, worker);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
  }
};

class Pool {
 public:
  explicit Pool(std::size_t threads) {
    workers_.reserve(threads);
    try {
      for (std::size_t worker = 1; worker < threads; ++worker) {
        workers_.emplace_back([this, worker] { loop(worker); });
      }
    } catch (const std::system_error&) {
      // The system gives no more threads: those that started do the work.
    }
  }
  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& thread : workers_) thread.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      busy_ = workers_.size();
      ++generation_;
    }
    wake_.notify_all();
    job.work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    job_ = nullptr;
  }

 private:
  void loop(std::size_t worker) {
    std::size_t seen = 0;
    for (;;) {
      Job* job = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
        job = job_;
      }
      job->work(worker);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::size_t busy_ = 0;
  std::size_t generation_ = 0;
  bool stop_ = false;
};

std::size_t default_threads() {
  if (const char* text = std::getenv("QUANCRYPT_NUM_THREADS")) {
    char* end = nullptr;
    const unsigned long value = std::strtoul(text, &end, 10);
    if (end != text && *end == '\0' && value >= 1 && value <= kMaxThreads) return value;
    if (*text != '\0') {
      throw Error(ErrorCode::parameter, "QUANCRYPT_NUM_THREADS is '" + std::string(text) +
                                            "'; allowed: 1 to " + std::to_string(kMaxThreads));
    }
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    const int count = CPU_COUNT(&set);
    if (count > 0) return static_cast<std::size_t>(count);
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? count : 1;
}

struct State {
  std::mutex in_use;  // held while a job runs
  std::unique_ptr<Pool> pool;
  std::size_t pool_threads = 0;
  pid_t pid = 0;
};

// Leaked on purpose: workers may outlive static destructors at interpreter shutdown. Threads do not
// survive fork(): a child process starts with a pool of its own. The old state cannot be destroyed there
// (its threads are gone, its mutex may be held) and is left alone. No lock here: a child could inherit
// it locked.
State& state() {
  static std::atomic<State*> current{nullptr};
  State* found = current.load();
  if (found == nullptr || found->pid != getpid()) {
    State* fresh = new State;
    fresh->pid = getpid();
    if (current.compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;  // another thread of this process was first
  }
  return *found;
}

std::atomic<std::size_t> wanted_threads{0};  // 0: not decided yet

}  // namespace

std::size_t num_threads() {
  std::size_t value = wanted_threads.load();
  if (value == 0) {
    value = default_threads();
    wanted_threads.store(value);
  }
  return value;
}

void set_num_threads(std::size_t threads) {
  wanted_threads.store(threads < 1 ? 1 : (threads > kMaxThreads ? kMaxThreads : threads));
}

void parallel_for(std::size_t count, std::size_t workers, const ParallelBody& body) {
  Job job;
  job.count = count;
  job.body = &body;
  if (count > 1 && workers > 1) {
    State& shared = state();
    const std::unique_lock<std::mutex> lock(shared.in_use, std::try_to_lock);
    if (lock.owns_lock()) {
      if (!shared.pool || shared.pool_threads != workers) {
        shared.pool.reset();
        shared.pool = std::make_unique<Pool>(workers);
        shared.pool_threads = workers;
      }
      shared.pool->run(job);
      if (job.error) std::rethrow_exception(job.error);
      return;
    }
  }
  job.work(0);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace quancrypt
