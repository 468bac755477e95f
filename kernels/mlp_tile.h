// A tile of the network's rows on a GPU: layers in shared memory, products on
// tensor cores; for mlp.cu.
//
// Tensor cores take factors of 10 bits (TF32) and sum in float32. A factor is
// the sum of two such numbers, and three of the four products are taken, which
// leaves an error of float32's own size (Ootomo and Yokota 2022, without their
// scaling). An infinite number gives NaN.
#pragma once

#include <mma.h>

#include <cstdint>

#include "core.h"
#include "mlp.h"

namespace dreamjax {
namespace {

namespace wmma = nvcuda::wmma;

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

}  // namespace
}  // namespace dreamjax
