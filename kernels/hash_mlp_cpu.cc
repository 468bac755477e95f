// Hash encoding and network on a CPU, a block of points at a time: features,
// their derivatives and hidden layers never leave the core's cache.
//
// Four features of a few points fill a vector, which is interpolated axis by
// axis; points then lie in the lanes as in mlp_cpu.cc. The table's gradient is
// a pass of its own, in which a part owns a level, so that no other part adds
// there and results do not depend on the threads.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu.h"
#include "hash_mlp.h"
#include "vector.h"

namespace dreamjax {
namespace {

// Points of a part of what has no sum over them.
constexpr int64_t kPart = 16 * kPoints;

int64_t RoundUp(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit * unit;
}

// Zeros for the points [begin, end) of a batch that begins at `first`.
void Clear(float* rows, int64_t width, int64_t first, int64_t begin,
           int64_t end) {
  std::fill(rows + (first + begin) * width, rows + (first + end) * width, 0.0f);
}

}  // namespace
}  // namespace dreamjax

#define DJ_UNIT_BODY "hash_mlp_vector.h"
#include "for_each_unit.h"

namespace dreamjax {

int64_t NumParts(const HashMlpValue& call) {
  return call.mlp.num_batches * (RoundUp(call.mlp.num_points, kPart) / kPart);
}

int64_t NumParts(const HashMlpPull& call) {
  return call.mlp.num_batches * call.mlp.num_parts;
}

int64_t NumParts(const HashMlpScatter& call) {
  return call.mlp.num_batches * call.grid.num_levels;
}

void RunPart(const HashMlpValue& call, int64_t part, VectorUnit unit) {
  const Mlp& m = call.mlp;
  const int64_t parts = RoundUp(m.num_points, kPart) / kPart;
  const int64_t batch = part / parts, begin = part % parts * kPart;
  const int64_t end = std::min(begin + kPart, m.num_points);
  const int64_t used = std::clamp(NumUsed(call, batch), begin, end);
  DJ_ON_UNIT(unit, RunPoints(call, batch, begin, used));
  Clear(call.output, Outputs(m), batch * m.num_points, used, end);
  if (call.slope != nullptr) {
    Clear(call.slope, 3, batch * m.num_points, used, end);
  }
}

void RunPart(const HashMlpPull& call, int64_t part, VectorUnit unit) {
  const Mlp& m = call.mlp;
  const int64_t batch = part / m.num_parts, used = NumUsed(call, batch);
  const int64_t size =
      RoundUp(RoundUp(used, m.num_parts) / m.num_parts, kPoints);
  const int64_t begin = std::min(part % m.num_parts * size, used);
  DJ_ON_UNIT(unit,
             RunPoints(call, batch, begin, std::min(begin + size, used),
                       m.partial + part * NumWeights(m)));
}

void RunPart(const HashMlpScatter& call, int64_t part, VectorUnit unit) {
  // The finest level takes longest, so it begins first.
  const int num_levels = call.grid.num_levels;
  DJ_ON_UNIT(unit,
             RunLevel(call, part / num_levels,
                      num_levels - 1 - static_cast<int>(part % num_levels)));
}

}  // namespace dreamjax
