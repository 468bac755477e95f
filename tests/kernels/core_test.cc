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
      ThreadPerTask pool(num_threads);
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

void CallsInsideCallsFinish() {
  ThreadPerTask outer(4);
  std::atomic<int> runs{0};
  ParallelFor(outer, 16, [&runs](int64_t) {
    ThreadPerTask inner(3);
    ParallelFor(inner, 16, [&runs](int64_t) { runs.fetch_add(1); });
  });
  EXPECT(runs.load() == 256);
}

}  // namespace
}  // namespace dreamjax

int main() {
  dreamjax::EveryPartRunsOnce();
  dreamjax::ABusyPoolDoesNotStopTheCaller();
  dreamjax::CallsInsideCallsFinish();
}
