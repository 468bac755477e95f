// The network on a CPU: blocks of points in vector registers.
//
// A block's rows are transposed, so that points lie in the lanes and every
// layer is sums of whole registers whatever its width. Hidden layers stay in
// the cache and are computed anew in a backward pass. A sum over all points is
// cut into parts by the call and not by the threads.
//
// The code is compiled for several instruction sets, of which those with fused
// multiply-add round less: bits differ between processors.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu.h"
#include "mlp.h"
#include "vector.h"

#define DJ_UNIT_BODY "mlp_vector.h"
#include "for_each_unit.h"

namespace dreamjax {
namespace {

template <class Call>
void RunPoints(const Call& call, int64_t batch, int64_t begin, int64_t end,
               float* partial, VectorUnit unit) {
  DJ_ON_UNIT(unit, RunPoints(call, batch, begin, end, partial));
}

// Points of a part of what has no sum over them.
constexpr int64_t kPart = 16 * kPoints;

int64_t RoundUp(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit * unit;
}

// What has no sum over the points.
template <class Call>
void RunPlainPart(const Call& call, int64_t part, VectorUnit unit) {
  const int64_t parts = RoundUp(call.num_points, kPart) / kPart;
  const int64_t begin = part % parts * kPart;
  RunPoints(call, part / parts, begin,
            std::min(begin + kPart, call.num_points), nullptr, unit);
}

template <class Call>
void RunSumPart(const Call& call, int64_t part, VectorUnit unit) {
  const int64_t size =
      RoundUp(RoundUp(call.num_points, call.num_parts) / call.num_parts,
              kPoints);
  const int64_t begin =
      std::min(part % call.num_parts * size, call.num_points);
  RunPoints(call, part / call.num_parts, begin,
            std::min(begin + size, call.num_points),
            call.partial + part * NumWeights(call), unit);
}

int64_t NumPlainParts(const Mlp& m) {
  return m.num_batches * (RoundUp(m.num_points, kPart) / kPart);
}

}  // namespace

int64_t NumParts(const MlpValue& call) { return NumPlainParts(call); }
int64_t NumParts(const MlpInputGradient& call) { return NumPlainParts(call); }
int64_t NumParts(const MlpGradient& call) {
  return call.num_batches * call.num_parts;
}
int64_t NumParts(const MlpSecond& call) {
  return call.num_batches * call.num_parts;
}

void RunPart(const MlpValue& call, int64_t part, VectorUnit unit) {
  RunPlainPart(call, part, unit);
}
void RunPart(const MlpInputGradient& call, int64_t part, VectorUnit unit) {
  RunPlainPart(call, part, unit);
}
void RunPart(const MlpGradient& call, int64_t part, VectorUnit unit) {
  RunSumPart(call, part, unit);
}
void RunPart(const MlpSecond& call, int64_t part, VectorUnit unit) {
  RunSumPart(call, part, unit);
}

}  // namespace dreamjax
