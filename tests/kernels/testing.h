// What the kernel tests share: thread pools, random numbers and a check.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
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

// A pool that starts a thread per task.
class ThreadPerTask {
 public:
  explicit ThreadPerTask(int num_threads) : num_threads_(num_threads) {}
  ~ThreadPerTask() { Join(); }
  int64_t num_threads() const { return num_threads_; }
  void Schedule(std::function<void()> task) {
    threads_.emplace_back(std::move(task));
  }
  void Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  int num_threads_;
  std::vector<std::thread> threads_;
};

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
