// Hash encoding on a CPU.
//
// Arithmetic runs on blocks of points in vector registers; the table is then
// read or written point by point, an entry's features at once. Levels come one
// after the other, for all points, so that a level stays in the cache that the
// threads share. A part takes a chunk of points of one level; or, where it adds
// to the table, all of them, so that no other part adds there.

#include <algorithm>
#include <cstdint>

#include "cpu.h"
#include "hash_grid.h"
#include "vector.h"

namespace dreamjax {
namespace {

constexpr int64_t kChunk = 32 * kPoints;

// The points of a batch, in chunks.
int64_t ChunksPerBatch(const HashGridCall& call) {
  return (call.num_points + kChunk - 1) / kChunk;
}

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

int64_t NumParts(const HashScatter& call) {
  return call.num_batches * call.grid.num_levels;
}

void RunPart(const HashGather& call, int64_t part, VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(call, part));
}

void RunPartOfLevel(const HashSlope& call, int level, int64_t part,
                    VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(call, level, part));
}

void RunPart(const HashScatter& call, int64_t part, VectorUnit unit) {
  DJ_ON_UNIT(unit, RunForFeatures(call, part));
}

}  // namespace dreamjax
