// The network on a GPU: a warp per tile of rows, a row per lane, layers in
// shared memory. Float32 throughout; sums of a part are taken in the order of
// its points, so results do not depend on timing.

#include <cstdint>

#include "launch.h"
#include "mlp.h"

namespace dreamjax {
namespace {

// What every GPU since sm_80 grants a block that asks for it.
constexpr int kMaxBytes = 96 * 1024;
// Tiles of a block that has no sum over the points.
constexpr int64_t kTilesPerBlock = 4;

enum class Then { kKeep, kClip, kGate };

// The layers of a tile, each as [width, rows]: h_l, and the cotangents of z_l.
struct Tile {
  const Mlp& m;
  const float* weight;
  int rows;
  int row;  // this lane's, which has none if it is `rows` or more
  float* memory;

  __device__ int WidthBefore(int l) const {
    int sum = 0;
    for (int i = 0; i < l; ++i) sum += m.size[i];
    return sum;
  }
  __device__ float* Layer(int l) const {
    return memory + WidthBefore(l) * rows;
  }
  __device__ float* Delta(int l) const {
    return memory + (WidthBefore(m.num_matrices + 1) + WidthBefore(l)) * rows;
  }
  // A place that is no layer's.
  __device__ float* Spare(int i) const {
    return memory +
           (2 * WidthBefore(m.num_matrices + 1) + i * kMaxMlpWidth) * rows;
  }

  __device__ void Load(const float* from, int width, int64_t first,
                       int64_t end, float* to) const {
    if (row >= rows) return;
    const int64_t point = first + row;
    for (int k = 0; k < width; ++k) {
      to[k * rows + row] = point < end ? from[point * width + k] : 0.0f;
    }
  }

  __device__ void Store(const float* from, int width, int64_t first,
                        int64_t end, float* to) const {
    const int64_t point = first + row;
    if (row >= rows || point >= end) return;
    for (int k = 0; k < width; ++k) {
      to[point * width + k] = from[k * rows + row];
    }
  }

  // to[j] = sum over k of w[k along + j across] from[k], of this lane's row.
  template <Then kThen>
  __device__ void Multiply(const float* w, int depth, int width, int along,
                           int across, const float* from, const float* gate,
                           float* to) const {
    constexpr int kSums = 4;
    if (row >= rows) return;
    for (int j = 0; j < width; j += kSums) {
      float sum[kSums] = {};
      for (int k = 0; k < depth; ++k) {
        const float x = from[k * rows + row];
        DJ_UNROLL(4)
        for (int i = 0; i < kSums; ++i) {
          const int column = j + i < width ? j + i : j;
          sum[i] = __fmaf_rn(__ldg(w + k * along + column * across), x,
                             sum[i]);
        }
      }
      DJ_UNROLL(4)
      for (int i = 0; i < kSums; ++i) {
        if (j + i < width) {
          const int place = (j + i) * rows + row;
          float x = sum[i];
          if (kThen == Then::kClip) x = x < 0.0f ? 0.0f : x;
          if (kThen == Then::kGate) x = gate[place] > 0.0f ? x : 0.0f;
          to[place] = x;
        }
      }
    }
  }

  template <Then kThen>
  __device__ void Forwards(int l, const float* from, const float* gate,
                           float* to) const {
    Multiply<kThen>(weight + MatrixAt(m, l), m.size[l], m.size[l + 1],
                    m.size[l + 1], 1, from, gate, to);
  }
  template <Then kThen>
  __device__ void Backwards(int l, const float* from, const float* gate,
                            float* to) const {
    Multiply<kThen>(weight + MatrixAt(m, l), m.size[l + 1], m.size[l], 1,
                    m.size[l + 1], from, gate, to);
  }

  __device__ void Hide() const {
    for (int l = 0; l + 1 < m.num_matrices; ++l) {
      Forwards<Then::kClip>(l, Layer(l), nullptr, Layer(l + 1));
    }
  }

  __device__ void PullBack() const {
    for (int l = m.num_matrices - 1; l > 0; --l) {
      Backwards<Then::kGate>(l, Delta(l + 1), Layer(l), Delta(l));
    }
  }

  // sum[k, j] += left[k] right[j], over the tile's rows. Each lane has its own
  // entries, and begins at a row of its own, in a bank of its own.
  __device__ void AddOuter(const float* left, int height, const float* right,
                           int width, float* sum) const {
    __syncwarp();
    for (int i = threadIdx.x; i < height * width; i += kWarp) {
      const float* a = left + i / width * rows;
      const float* b = right + i % width * rows;
      float total = 0.0f;
      for (int r = 0; r < rows; ++r) {
        const int place = (r + threadIdx.x) % rows;
        total = __fmaf_rn(a[place], b[place], total);
      }
      sum[i] += total;
    }
    __syncwarp();
  }
};

__device__ void RunTile(const MlpValue& m, const Tile& t, int64_t first,
                        int64_t end, float*) {
  const int last = m.num_matrices - 1;
  t.Load(m.input, Inputs(m), first, end, t.Layer(0));
  t.Hide();
  t.Forwards<Then::kKeep>(last, t.Layer(last), nullptr, t.Delta(last + 1));
  t.Store(t.Delta(last + 1), Outputs(m), first, end, m.result);
}

__device__ void PullRows(const Mlp& m, const Tile& t, int64_t first,
                         int64_t end) {
  t.Load(m.input, Inputs(m), first, end, t.Layer(0));
  t.Load(m.cotangent, Outputs(m), first, end, t.Delta(m.num_matrices));
  t.Hide();
  t.PullBack();
}

__device__ void PullInput(const Mlp& m, const Tile& t, int64_t first,
                          int64_t end) {
  PullRows(m, t, first, end);
  t.Backwards<Then::kKeep>(0, t.Delta(1), nullptr, t.Delta(0));
  t.Store(t.Delta(0), Inputs(m), first, end, m.result);
}

__device__ void RunTile(const MlpInputGradient& m, const Tile& t,
                        int64_t first, int64_t end, float*) {
  PullInput(m, t, first, end);
}

__device__ void RunTile(const MlpGradient& m, const Tile& t, int64_t first,
                        int64_t end, float* sum) {
  PullInput(m, t, first, end);
  for (int l = 0; l < m.num_matrices; ++l) {
    t.AddOuter(t.Layer(l), m.size[l], t.Delta(l + 1), m.size[l + 1],
               sum + MatrixAt(m, l));
  }
}

__device__ void RunTile(const MlpSecond& m, const Tile& t, int64_t first,
                        int64_t end, float* sum) {
  PullRows(m, t, first, end);
  float* tangent = t.Delta(0);
  t.Load(m.direction, Inputs(m), first, end, tangent);
  for (int l = 0; l < m.num_matrices; ++l) {
    t.AddOuter(tangent, m.size[l], t.Delta(l + 1), m.size[l + 1],
               sum + MatrixAt(m, l));
    float* next = t.Spare(l % 2);
    if (l + 1 < m.num_matrices) {
      t.Forwards<Then::kGate>(l, tangent, t.Layer(l + 1), next);
    } else {
      t.Forwards<Then::kKeep>(l, tangent, nullptr, next);
    }
    tangent = next;
  }
  t.Store(tangent, Outputs(m), first, end, m.result);
}

// Block q of a batch's `parts` takes the points from q times `size` on.
template <class Call>
__global__ void __launch_bounds__(kWarp)
    RunPart(const __grid_constant__ Call call, int64_t parts,
            int64_t size, int rows) {
  extern __shared__ float memory[];
  const int64_t part = blockIdx.x, batch = part / parts;
  const int64_t num_weights = NumWeights(call);
  const int64_t start = batch * call.num_points;
  const int64_t limit = start + call.num_points;
  const int64_t first = start + part % parts * size;
  const int64_t end = first + size < limit ? first + size : limit;
  float* sum = call.partial + part * num_weights;
  if (call.partial != nullptr) {
    // As AddOuter shares them out.
    for (int l = 0; l < call.num_matrices; ++l) {
      const int count = call.size[l] * call.size[l + 1];
      for (int i = threadIdx.x; i < count; i += kWarp) {
        sum[MatrixAt(call, l) + i] = 0.0f;
      }
    }
  }
  const Tile tile = {call, call.weight + batch * num_weights, rows,
                     static_cast<int>(threadIdx.x), memory};
  for (int64_t i = first; i < end; i += rows) {
    RunTile(call, tile, i, end, sum);
  }
}

template <class Call>
const char* LaunchParts(CUstream_st* stream, const Call& call,
                        int64_t parts_with_sum) {
  if (call.num_batches == 0) return nullptr;
  int floats = 2 * kMaxMlpWidth;
  for (int l = 0; l <= call.num_matrices; ++l) floats += 2 * call.size[l];
  const int bytes_per_row = floats * static_cast<int>(sizeof(float));
  int rows = kWarp;
  while (rows * bytes_per_row > kMaxBytes) rows /= 2;
  const int64_t tiles = (call.num_points + rows - 1) / rows;
  int64_t parts = (tiles + kTilesPerBlock - 1) / kTilesPerBlock;
  if (parts_with_sum > 0) parts = parts_with_sum;
  if (parts == 0) return nullptr;
  const int64_t size = (tiles + parts - 1) / parts * rows;
  cudaError_t error =
      cudaFuncSetAttribute(RunPart<Call>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kMaxBytes);
  if (error == cudaSuccess) {
    error = LaunchBlocks(
        stream, {call.num_batches * parts, kWarp, 1, rows * bytes_per_row},
        RunPart<Call>, call, parts, size, rows);
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
