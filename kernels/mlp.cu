// The network on a GPU: a warp per tile of rows, layers in shared memory,
// products on tensor cores.
//
// Tensor cores take factors of 10 bits (TF32) and sum in float32. A factor is
// the sum of two such numbers, and three of the four products are taken, which
// leaves an error of float32's own size (Ootomo and Yokota 2022, without their
// scaling). An infinite number gives NaN. Sums of a part are taken in the order
// of its points, so results do not depend on timing.

#include <mma.h>

#include <cstdint>

#include "launch.h"
#include "mlp.h"

namespace dreamjax {
namespace {

namespace wmma = nvcuda::wmma;

// What every GPU since sm_80 grants a block that asks for it.
constexpr int kMaxBytes = 96 * 1024;
// Tiles of a block that has no sum over the points.
constexpr int64_t kTilesPerBlock = 4;
// Rows and columns of a product, and terms of its sums.
constexpr int kSide = 16;
constexpr int kTerms = 8;
// Products side by side whose sums registers can keep: of rows, of columns.
constexpr int kRowProducts = 2;
constexpr int kColumnProducts = 4;
constexpr int kMaxRows = kRowProducts * kSide;
static_assert(kMaxRows <= kWarp, "a lane loads a row");
// From row to row of the weights at hand, in banks of their own.
constexpr int kWeightStride = kColumnProducts * kSide + 8;
constexpr int kWeightFloats = kTerms * kWeightStride;

enum class Then { kKeep, kClip, kGate };

using Sum = wmma::fragment<wmma::accumulator, kSide, kSide, kTerms, float>;

// A factor as the sum of two numbers of TF32.
template <class Use, class Layout>
struct Factor {
  wmma::fragment<Use, kSide, kSide, kTerms, wmma::precision::tf32, Layout> high,
      low;

  __device__ Factor(const float* from, int stride) {
    wmma::load_matrix_sync(high, from, stride);
    for (int i = 0; i < high.num_elements; ++i) {
      const float x = high.x[i];
      high.x[i] = wmma::__float_to_tf32(x);
      low.x[i] = wmma::__float_to_tf32(x - high.x[i]);
    }
  }
};

template <class Left, class Right>
__device__ void AddProduct(const Left& left, const Right& right, Sum& sum) {
  wmma::mma_sync(sum, left.low, right.high, sum);
  wmma::mma_sync(sum, left.high, right.low, sum);
  wmma::mma_sync(sum, left.high, right.high, sum);
}

__host__ __device__ inline int RoundUp(int x) {
  return (x + kSide - 1) / kSide * kSide;
}

// Columns of all layers before one.
__host__ __device__ inline int ColumnsBefore(const Mlp& m, int l) {
  int sum = 0;
  for (int i = 0; i < l; ++i) sum += RoundUp(m.size[i]);
  return sum;
}

// How many rows a tile has, and from column to column of its layers.
struct Shape {
  int rows;
  int stride;
};

// The layers of a tile, each as columns of its rows; columns and rows that do
// not exist are zero.
struct Tile {
  const Mlp& m;
  const float* weight;
  Shape shape;
  int lane;
  float* memory;

  // Weights, or sums, that lanes give each other.
  __device__ float* Shared() const { return memory; }
  __device__ float* Layer(int l) const {
    return memory + kWeightFloats + ColumnsBefore(m, l) * shape.stride;
  }
  // The cotangents of z_l where they have a place of their own, l > 0.
  __device__ float* Delta(int l) const {
    return Layer(m.num_matrices) +
           (ColumnsBefore(m, l) - ColumnsBefore(m, 1)) * shape.stride;
  }

  __device__ void Load(const float* from, int width, int64_t first,
                       int64_t end, float* to) const {
    __syncwarp();
    const int64_t point = first + lane;
    const int columns = lane < shape.rows ? RoundUp(width) : 0;
    for (int k = 0; k < columns; ++k) {
      to[k * shape.stride + lane] =
          point < end && k < width ? from[point * width + k] : 0.0f;
    }
    __syncwarp();
  }

  __device__ void Store(const float* from, int width, int64_t first,
                        int64_t end, float* to) const {
    __syncwarp();
    const int64_t point = first + lane;
    if (lane >= shape.rows || point >= end) return;
    for (int k = 0; k < width; ++k) {
      to[point * width + k] = from[k * shape.stride + lane];
    }
  }

  // What becomes of the sums, in `to` and where `gate` is above zero.
  template <Then kThen>
  __device__ void Keep(Sum& sum, const float* gate, float* to) const {
    if (kThen == Then::kClip) {
      for (int i = 0; i < sum.num_elements; ++i) {
        sum.x[i] = sum.x[i] < 0.0f ? 0.0f : sum.x[i];
      }
    }
    if (kThen == Then::kGate) {
      Sum open;
      wmma::load_matrix_sync(open, gate, shape.stride, wmma::mem_col_major);
      for (int i = 0; i < sum.num_elements; ++i) {
        sum.x[i] = open.x[i] > 0.0f ? sum.x[i] : 0.0f;
      }
    }
    wmma::store_matrix_sync(to, sum, shape.stride, wmma::mem_col_major);
  }

  // to[j] = sum over k of w[k along + j across] from[k]; `gate` may be `to`.
  template <Then kThen>
  __device__ void Multiply(const float* w, int depth, int width, int along,
                           int across, const float* from, const float* gate,
                           float* to) const {
    constexpr int kColumns = kColumnProducts * kSide;
    for (int first = 0; first < width; first += kColumns) {
      Sum sum[kRowProducts][kColumnProducts];
      DJ_UNROLL(2)
      for (int r = 0; r < kRowProducts; ++r) {
        DJ_UNROLL(4)
        for (int c = 0; c < kColumnProducts; ++c) {
          wmma::fill_fragment(sum[r][c], 0.0f);
        }
      }
      for (int k = 0; k < depth; k += kTerms) {
        __syncwarp();
        for (int i = lane; i < kTerms * kColumns; i += kWarp) {
          const int term = k + i / kColumns, column = first + i % kColumns;
          Shared()[i / kColumns * kWeightStride + i % kColumns] =
              term < depth && column < width
                  ? __ldg(w + term * along + column * across)
                  : 0.0f;
        }
        __syncwarp();
        DJ_UNROLL(2)
        for (int r = 0; r < kRowProducts; ++r) {
          if (r * kSide >= shape.rows) continue;
          const Factor<wmma::matrix_a, wmma::col_major> left(
              from + k * shape.stride + r * kSide, shape.stride);
          DJ_UNROLL(4)
          for (int c = 0; c < kColumnProducts; ++c) {
            if (first + c * kSide >= width) continue;
            const Factor<wmma::matrix_b, wmma::row_major> right(
                Shared() + c * kSide, kWeightStride);
            AddProduct(left, right, sum[r][c]);
          }
        }
      }
      DJ_UNROLL(2)
      for (int r = 0; r < kRowProducts; ++r) {
        if (r * kSide >= shape.rows) continue;
        DJ_UNROLL(4)
        for (int c = 0; c < kColumnProducts; ++c) {
          if (first + c * kSide >= width) continue;
          const int place = (first + c * kSide) * shape.stride + r * kSide;
          Keep<kThen>(sum[r][c], gate + place, to + place);
        }
      }
    }
    __syncwarp();
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
      Forwards<Then::kClip>(l, Layer(l), Layer(l + 1), Layer(l + 1));
    }
  }

  // sum[k, j] += left[k] right[j], over the tile's rows.
  __device__ void AddOuter(const float* left, int height, const float* right,
                           int width, float* sum) const {
    for (int k = 0; k < height; k += kSide) {
      for (int j = 0; j < width; j += kSide) {
        Sum product;
        wmma::fill_fragment(product, 0.0f);
        for (int row = 0; row < shape.rows; row += kTerms) {
          const Factor<wmma::matrix_a, wmma::row_major> a(
              left + k * shape.stride + row, shape.stride);
          const Factor<wmma::matrix_b, wmma::col_major> b(
              right + j * shape.stride + row, shape.stride);
          AddProduct(a, b, product);
        }
        __syncwarp();
        wmma::store_matrix_sync(Shared(), product, kSide, wmma::mem_row_major);
        __syncwarp();
        for (int i = lane; i < kSide * kSide; i += kWarp) {
          const int row = k + i / kSide, column = j + i % kSide;
          if (row < height && column < width) {
            sum[row * width + column] += Shared()[i];
          }
        }
      }
    }
    __syncwarp();
  }
};

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
__host__ inline int NumColumns(const Mlp& m) {
  return ColumnsBefore(m, m.num_matrices + 1);
}
__host__ inline int NumColumns(const MlpSecond& m) {
  return 2 * ColumnsBefore(m, m.num_matrices + 1) -
         ColumnsBefore(m, 1) - RoundUp(Outputs(m));
}

// Block q of a batch's `parts` takes the points from q times `size` on.
template <class Call>
__global__ void __launch_bounds__(kWarp)
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

// The largest tile whose memory a block may have; columns begin in banks of
// their own where there is room for that.
template <class Call>
int BytesOf(const Call& call, const Shape& shape) {
  return (kWeightFloats + NumColumns(call) * shape.stride) *
         static_cast<int>(sizeof(float));
}

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
