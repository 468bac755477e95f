// The network on a GPU: a warp per tile of rows. Sums of a part are taken in the
// order of its points, so results do not depend on timing.

#include <cstdint>

#include "launch.h"
#include "mlp.h"
#include "mlp_tile.h"

namespace dreamjax {
namespace {

// What every GPU since sm_80 grants a block that asks for it.
constexpr int kMaxBytes = 96 * 1024;
// Tiles of a block that has no sum over the points.
constexpr int64_t kTilesPerBlock = 4;
// Blocks that a multiprocessor must have registers for: its shared memory holds
// few more. Without the number some compilations spill to stay below 128.
constexpr int kBlocks = 8;

__device__ void RunTile(const MlpValue& m, const Tile& t, int64_t first,
                        int64_t end, float*) {
  const int last = m.num_matrices - 1;
  t.Load(m.input, Inputs(m), first, end, t.Layer(0));
  t.Hide();
  t.Forwards<Then::kKeep>(last, t.Layer(last), t.Layer(last + 1),
                          t.Layer(last + 1));
  t.Store(t.Layer(last + 1), Outputs(m), first, end, m.result);
}

// Each layer's place goes to the cotangents of its sums once it is used up.
template <class Call>
__device__ void PullInput(const Call& m, const Tile& t, int64_t first,
                          int64_t end, float* sum) {
  t.Load(m.input, Inputs(m), first, end, t.Layer(0));
  t.Load(m.cotangent, Outputs(m), first, end, t.Layer(m.num_matrices));
  t.Hide();
  for (int l = m.num_matrices - 1; l >= 0; --l) {
    if (sum != nullptr) {
      t.AddOuter(t.Layer(l), m.size[l], t.Layer(l + 1), m.size[l + 1],
                 sum + MatrixAt(m, l));
    }
    if (l > 0) {
      t.Backwards<Then::kGate>(l, t.Layer(l + 1), t.Layer(l), t.Layer(l));
    } else {
      t.Backwards<Then::kKeep>(l, t.Layer(l + 1), t.Layer(l), t.Layer(l));
    }
  }
  t.Store(t.Layer(0), Inputs(m), first, end, m.result);
}

__device__ void RunTile(const MlpInputGradient& m, const Tile& t,
                        int64_t first, int64_t end, float*) {
  PullInput(m, t, first, end, nullptr);
}

__device__ void RunTile(const MlpGradient& m, const Tile& t, int64_t first,
                        int64_t end, float* sum) {
  PullInput(m, t, first, end, sum);
}

// Cotangents have places of their own, and each goes to the tangents of its
// layer once it is used up.
__device__ void RunTile(const MlpSecond& m, const Tile& t, int64_t first,
                        int64_t end, float* sum) {
  const int last = m.num_matrices - 1;
  t.Load(m.input, Inputs(m), first, end, t.Layer(0));
  t.Load(m.cotangent, Outputs(m), first, end, t.Delta(last + 1));
  t.Hide();
  for (int l = last; l > 0; --l) {
    t.Backwards<Then::kGate>(l, t.Delta(l + 1), t.Layer(l), t.Delta(l));
  }
  float* tangent = t.Layer(0);
  t.Load(m.direction, Inputs(m), first, end, tangent);
  for (int l = 0; l <= last; ++l) {
    float* next = t.Delta(l + 1);
    t.AddOuter(tangent, m.size[l], next, m.size[l + 1], sum + MatrixAt(m, l));
    if (l < last) {
      t.Forwards<Then::kGate>(l, tangent, t.Layer(l + 1), next);
    } else {
      t.Forwards<Then::kKeep>(l, tangent, next, next);
    }
    tangent = next;
  }
  t.Store(tangent, Outputs(m), first, end, m.result);
}

// Columns that a tile of a call needs.
int NumColumns(const Mlp& m) {
  return ColumnsBefore(m, m.num_matrices + 1);
}
int NumColumns(const MlpSecond& m) {
  return 2 * ColumnsBefore(m, m.num_matrices + 1) -
         ColumnsBefore(m, 1) - RoundUp(Outputs(m));
}

// Block q of a batch's `parts` takes the points from q times `size` on.
template <class Call>
__global__ void __launch_bounds__(kWarp, kBlocks)
    RunPart(const __grid_constant__ Call call, int64_t parts,
            int64_t size, Shape shape) {
  alignas(32) extern __shared__ float memory[];
  const int64_t part = blockIdx.x, batch = part / parts;
  const int64_t num_weights = NumWeights(call);
  const int64_t start = batch * call.num_points;
  const int64_t limit = start + call.num_points;
  const int64_t first = start + part % parts * size;
  const int64_t end = first + size < limit ? first + size : limit;
  float* sum = call.partial;
  if (sum != nullptr) {
    sum += part * num_weights;
    for (int64_t i = threadIdx.x; i < num_weights; i += kWarp) sum[i] = 0.0f;
  }
  const Tile tile = {call, call.weight + batch * num_weights, shape,
                     static_cast<int>(threadIdx.x), memory};
  for (int64_t i = first; i < end; i += shape.rows) {
    RunTile(call, tile, i, end, sum);
  }
}

template <class Call>
int BytesOf(const Call& call, const Shape& shape) {
  return (kWeightFloats + NumColumns(call) * shape.stride) *
         static_cast<int>(sizeof(float));
}

// The largest tile whose memory a block may have; columns begin in banks of
// their own where there is room for that.
template <class Call>
Shape ShapeOf(const Call& call) {
  for (const Shape shape : {Shape{kMaxRows, kMaxRows + 8},
                            Shape{kSide, kSide + 8}}) {
    if (BytesOf(call, shape) <= kMaxBytes) return shape;
  }
  return {kSide, kSide};
}

template <class Call>
const char* LaunchParts(CUstream_st* stream, const Call& call,
                        int64_t parts_with_sum) {
  if (call.num_batches == 0) return nullptr;
  const Shape shape = ShapeOf(call);
  const int64_t tiles = (call.num_points + shape.rows - 1) / shape.rows;
  int64_t parts = (tiles + kTilesPerBlock - 1) / kTilesPerBlock;
  if (parts_with_sum > 0) parts = parts_with_sum;
  if (parts == 0) return nullptr;
  const int64_t size = (tiles + parts - 1) / parts * shape.rows;
  cudaError_t error =
      cudaFuncSetAttribute(RunPart<Call>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kMaxBytes);
  if (error == cudaSuccess) {
    error = LaunchBlocks(
        stream, {call.num_batches * parts, kWarp, 1, BytesOf(call, shape)},
        RunPart<Call>, call, parts, size, shape);
  }
  return Explain(error);
}

}  // namespace

const char* Launch(CUstream_st* stream, const MlpValue& call) {
  return LaunchParts(stream, call, 0);
}

const char* Launch(CUstream_st* stream, const MlpInputGradient& call) {
  return LaunchParts(stream, call, 0);
}

const char* Launch(CUstream_st* stream, const MlpGradient& call) {
  return LaunchParts(stream, call, call.num_parts);
}

const char* Launch(CUstream_st* stream, const MlpSecond& call) {
  return LaunchParts(stream, call, call.num_parts);
}

}  // namespace dreamjax
