// Hash encoding on a CPU.
//
// Arithmetic runs on blocks of points in vector registers; the table is then
// read or written point by point, an entry's features at once. Levels come one
// after the other, for all points, so that a level stays in the cache that the
// threads share. A part takes a chunk of points of one level; or, where it adds
// to the table, many chunks, so that no other part adds there. Their cotangents
// are first laid level by level: of a row a level wants too little to read it.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu.h"
#include "hash_grid.h"
#include "vector.h"

namespace dreamjax {
namespace {

constexpr int64_t kChunk = 32 * kPoints;
// Cotangents of a run: 16 MB.
constexpr int64_t kRunFloats = int64_t{1} << 22;

int64_t NumChunks(int64_t num_points) {
  return (num_points + kChunk - 1) / kChunk;
}

// The points of a batch, in chunks.
int64_t ChunksPerBatch(const HashGridCall& call) {
  return NumChunks(call.num_points);
}

int64_t Size(const ScatterRun& run) { return run.end - run.begin; }

}  // namespace
}  // namespace dreamjax

#define DJ_UNIT_BODY "hash_grid_vector.h"
#include "for_each_unit.h"

namespace dreamjax {

int64_t NumParts(const HashGather& call) {
  return call.grid.num_levels * call.num_batches * ChunksPerBatch(call);
}

int64_t NumPartsOfLevel(const HashSlope& call) {
  return call.num_batches * ChunksPerBatch(call);
}

int64_t NumParts(const ScatterSplit& run) { return NumChunks(Size(run)); }

int64_t NumParts(const ScatterAdd& run) { return run.grid.num_levels; }

void RunPart(const HashGather& call, int64_t part, VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(call, part));
}

void RunPartOfLevel(const HashSlope& call, int level, int64_t part,
                    VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(call, level, part));
}

void RunPart(const ScatterSplit& run, int64_t part, VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(run, part));
}

void RunPart(const ScatterAdd& run, int64_t part, VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(run, part));
}

std::vector<ScatterRun> RunsOf(const HashScatter& call) {
  const int64_t columns =
      int64_t{call.grid.num_levels} * call.grid.num_features;
  // At least one, for the zeros of a table that nothing is added to.
  const int64_t size = std::max<int64_t>(
      1, std::min(call.num_points, kRunFloats / columns));
  const std::shared_ptr<float[]> levels(new float[size * columns]);
  std::vector<ScatterRun> runs;
  const auto add = [&](const HashGridCall& term, bool is_first) {
    for (int64_t batch = 0; batch < call.num_batches; ++batch) {
      int64_t begin = 0;
      do {
        const int64_t end = std::min(begin + size, call.num_points);
        const bool is_run_first = is_first && begin == 0;
        runs.push_back({term, batch, begin, end, is_run_first, levels});
        begin = end;
      } while (begin < call.num_points);
    }
  };
  add(call, true);
  if (call.plain != nullptr) {
    HashGridCall plain = call;
    plain.cotangent = call.plain;
    plain.direction = nullptr;
    add(plain, false);
  }
  return runs;
}

}  // namespace dreamjax
