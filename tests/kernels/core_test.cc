// ParallelFor: every part once, and no waiting for threads that never come.

#include "core.h"

#include <atomic>
#include <vector>

#include "testing.h"

namespace dreamjax {
namespace {

void EveryPartRunsOnce() {
  for (const int num_threads : {1, 2, 5}) {
    for (const int64_t num_parts : {0, 1, 2, 1000}) {
      ThreadPool pool(num_threads);
      std::vector<std::atomic<int>> runs(num_parts);
      ParallelFor(pool, num_parts,
                  [&runs](int64_t part) { runs[part].fetch_add(1); });
      for (const auto& count : runs) EXPECT(count.load() == 1);
    }
  }
}

void ABusyPoolDoesNotStopTheCaller() {
  BusyPool pool;
  int runs = 0;
  ParallelFor(pool, 100, [&runs](int64_t) { ++runs; });
  EXPECT(runs == 100);
  // Helpers that come late find nothing to do.
  EXPECT(pool.tasks.size() == 7);
  for (const auto& task : pool.tasks) task();
  EXPECT(runs == 100);
}

// Counts are no atomics: what parts wrote is there when a call returns.
void CallsInsideCallsShareThePool() {
  ExpectSameOnEveryPool([](auto& pool) {
    std::vector<int> runs(16 * 16);
    ParallelFor(pool, 16, [&pool, &runs](int64_t outer) {
      ParallelFor(pool, 16, [&runs, outer](int64_t inner) {
        ++runs[16 * outer + inner];
      });
    });
    for (const int count : runs) EXPECT(count == 1);
    return runs;
  });
}

}  // namespace
}  // namespace dreamjax

int main() {
  dreamjax::EveryPartRunsOnce();
  dreamjax::ABusyPoolDoesNotStopTheCaller();
  dreamjax::CallsInsideCallsShareThePool();
}
