// What the kernel tests share: thread pools, random numbers and a check.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <queue>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#define EXPECT(condition)                                               \
  do {                                                                  \
    if (!(condition)) {                                                 \
      std::fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__,  \
                   #condition);                                         \
      std::exit(1);                                                     \
    }                                                                   \
  } while (false)

namespace dreamjax {

// A pool of threads that take tasks from a queue; like XLA's it has no wait.
class ThreadPool {
 public:
  // `num_threads` counts the caller, who works too.
  explicit ThreadPool(int num_threads) : num_threads_(num_threads) {
    for (int i = 1; i < num_threads; ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }
  // Runs what is left first.
  ~ThreadPool() {
    Schedule(nullptr);
    for (std::thread& thread : threads_) thread.join();
  }
  int64_t num_threads() const { return num_threads_; }
  void Schedule(std::function<void()> task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push(std::move(task));
    }
    waiting_.notify_all();
  }

 private:
  void Work() {
    while (true) {
      std::function<void()> task;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        waiting_.wait(lock, [this] { return !tasks_.empty(); });
        task = tasks_.front();
        // An empty task is the last one, for all threads.
        if (task) tasks_.pop();
      }
      if (!task) return;
      task();
    }
  }

  const int64_t num_threads_;
  std::mutex mutex_;
  std::condition_variable waiting_;
  std::queue<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
};

// Stands for a pool that orders no part of a call before another one. Where
// two parts share memory ThreadSanitizer then sees it, whatever ran when;
// counters, from which threads take parts, would hide most of it.
struct ThreadPerPart {};

template <class Run>
void ParallelFor(ThreadPerPart&, int64_t num_parts, Run run) {
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < num_parts; ++part) {
    threads.emplace_back([run, part] { run(part); });
  }
  for (std::thread& thread : threads) thread.join();
}

// results(pool) is the same on pools of all kinds, and in calls at once on one.
template <class Results>
void ExpectSameOnEveryPool(Results results) {
  ThreadPool one(1);
  const auto first = results(one);
  const auto check = [&results, &first](auto& pool) {
    EXPECT(results(pool) == first);
  };
  for (const int num_threads : {2, 7}) {
    ThreadPool pool(num_threads);
    check(pool);
  }
  ThreadPerPart unordered;
  check(unordered);
  ThreadPool shared(3);
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&check, &shared] { check(shared); });
  }
  for (std::thread& caller : callers) caller.join();
}

// A pool whose threads are busy for good: it keeps every task for later.
class BusyPool {
 public:
  int64_t num_threads() const { return 8; }
  void Schedule(std::function<void()> task) { tasks.push_back(task); }
  std::vector<std::function<void()>> tasks;
};

inline std::vector<float> Uniform(size_t count, float low, float high) {
  static std::mt19937 generator(0);
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> numbers(count);
  for (float& number : numbers) number = distribution(generator);
  return numbers;
}

}  // namespace dreamjax
