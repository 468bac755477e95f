// A network's layers on a block of points, for one instruction set
// (for_each_unit.h); included once for each.
// Points lie in the lanes: an array [width, kPoints] holds a layer.

#include "rows.h"

// What becomes of a sum: itself, max(sum, 0) that lets NaN through, or itself
// where a gate is open.
enum class Then { kKeep, kClip, kGate };

// A matrix of weights, read along its rows or its columns.
struct Matrix {
  const float* weight;
  int depth;      // terms of a sum
  int width;      // sums
  int64_t along;  // from term to term
  int64_t across; // from sum to sum
};

template <int kRows, Then kThen>
DJ_VECTOR void SumRows(const Matrix& matrix, const float* weight,
                       const float* __restrict from,
                       const float* __restrict gate, float* __restrict to) {
  Vector sum[kRows][2] = {};
  for (int k = 0; k < matrix.depth; ++k) {
    const Vector x0 = Read(from + k * kPoints);
    const Vector x1 = Read(from + k * kPoints + kLanes);
    const float* w = weight + k * matrix.along;
DJ_UNROLL(8)
    for (int row = 0; row < kRows; ++row) {
      const Vector spread = w[row * matrix.across] - Vector{};
      sum[row][0] = Fma(spread, x0, sum[row][0]);
      sum[row][1] = Fma(spread, x1, sum[row][1]);
    }
  }
DJ_UNROLL(8)
  for (int row = 0; row < kRows; ++row) {
DJ_UNROLL(2)
    for (int i = 0; i < 2; ++i) {
      const int64_t place = row * kPoints + i * kLanes;
      Vector x = sum[row][i];
      if (kThen == Then::kClip) x = x < 0.0f ? Vector{} : x;
      if (kThen == Then::kGate) x = Read(gate + place) > 0.0f ? x : Vector{};
      Write(x, to + place);
    }
  }
}

// to[j] = sum over k of weight[k, j] from[k], for all points of a block.
template <Then kThen>
void Multiply(const Matrix& matrix, const float* from, const float* gate,
              float* to) {
  for (int p = 0; p < kPoints; p += 2 * kLanes) {
    int row = 0;
    for (; row + kTile <= matrix.width; row += kTile) {
      SumRows<kTile, kThen>(matrix, matrix.weight + row * matrix.across,
                            from + p, gate + row * kPoints + p,
                            to + row * kPoints + p);
    }
    for (; row + 4 <= matrix.width; row += 4) {
      SumRows<4, kThen>(matrix, matrix.weight + row * matrix.across, from + p,
                        gate + row * kPoints + p, to + row * kPoints + p);
    }
    for (; row < matrix.width; ++row) {
      SumRows<1, kThen>(matrix, matrix.weight + row * matrix.across, from + p,
                        gate + row * kPoints + p, to + row * kPoints + p);
    }
  }
}

template <int kRows, int kColumns>
DJ_VECTOR void AddProducts(const float* __restrict left,
                           const float* __restrict right, int64_t stride,
                           Vector* __restrict to) {
  Vector sum[kRows][kColumns];
DJ_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
DJ_UNROLL(4)
    for (int c = 0; c < kColumns; ++c) sum[r][c] = to[r * stride + c];
  }
  for (int i = 0; i < kPoints; i += kLanes) {
    Vector b[kColumns];
DJ_UNROLL(4)
    for (int c = 0; c < kColumns; ++c) b[c] = Read(right + c * kPoints + i);
DJ_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const Vector a = Read(left + r * kPoints + i);
DJ_UNROLL(4)
      for (int c = 0; c < kColumns; ++c) sum[r][c] = Fma(a, b[c], sum[r][c]);
    }
  }
DJ_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
DJ_UNROLL(4)
    for (int c = 0; c < kColumns; ++c) to[r * stride + c] = sum[r][c];
  }
}

template <int kRows>
DJ_VECTOR void AddProductRows(const float* left, const float* right,
                              int columns, int stride, Vector* to) {
  constexpr int kColumns = kTile / 2;
  int c = 0;
  for (; c + kColumns <= columns; c += kColumns) {
    AddProducts<kRows, kColumns>(left, right + c * kPoints, stride, to + c);
  }
  for (; c < columns; ++c) {
    AddProducts<kRows, 1>(left, right + c * kPoints, stride, to + c);
  }
}

// to[k stride + j] += left[k] right[j], summed over the points but not the
// lanes.
void AddOuter(const float* left, int rows, const float* right, int columns,
              int stride, Vector* to) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    AddProductRows<4>(left + r * kPoints, right, columns, stride,
                      to + r * stride);
  }
  for (; r < rows; ++r) {
    AddProductRows<1>(left + r * kPoints, right, columns, stride,
                      to + r * stride);
  }
}

// The arrays of a block, and the sums of a part.
struct Scratch {
  explicit Scratch(const Mlp& m) {
    int64_t rows = 2 * kMaxMlpWidth;
    for (int l = 0; l <= m.num_matrices; ++l) rows += 2 * m.size[l];
    lines.reset(new Line[rows * kPoints / kLineFloats]);
    float* next = lines[0].at;
    for (int l = 0; l <= m.num_matrices; ++l) {
      layer[l] = next;
      delta[l] = layer[l] + m.size[l] * kPoints;
      next = delta[l] + m.size[l] * kPoints;
    }
    spare[0] = next;
    spare[1] = next + kMaxMlpWidth * kPoints;
  }

  std::unique_ptr<Line[]> lines;  // not cleared
  float* layer[kMaxMlpMatrices + 1];  // h_l
  float* delta[kMaxMlpMatrices + 1];  // d<cotangent, output>/dz_l
  float* spare[2];
};

Matrix Forwards(const Mlp& m, const float* weight, int l) {
  const int64_t columns = m.size[l + 1];
  return {weight + MatrixAt(m, l), m.size[l], m.size[l + 1], columns, 1};
}

Matrix Backwards(const Mlp& m, const float* weight, int l) {
  const int64_t columns = m.size[l + 1];
  return {weight + MatrixAt(m, l), m.size[l + 1], m.size[l], 1, columns};
}

// The hidden layers.
void Hide(const Mlp& m, const float* weight, Scratch& s) {
  for (int l = 0; l + 1 < m.num_matrices; ++l) {
    Multiply<Then::kClip>(Forwards(m, weight, l), s.layer[l], s.layer[l],
                          s.layer[l + 1]);
  }
}

// The cotangents of the hidden layers' sums, from that of the output.
void PullBack(const Mlp& m, const float* weight, Scratch& s) {
  for (int l = m.num_matrices - 1; l > 0; --l) {
    Multiply<Then::kGate>(Backwards(m, weight, l), s.delta[l + 1], s.layer[l],
                          s.delta[l]);
  }
}

// A block of points: `first` counts the points of all batches.
struct Rows {
  int64_t first;
  int count;
};

// Sums of some weights' gradients, over the points but not the lanes.
struct Sums {
  explicit Sums(int64_t count)
      : count(count),
        // Lines, because vectors of Vector do not keep its alignment.
        lines((count * sizeof(Vector) + sizeof(Line) - 1) / sizeof(Line),
              Line{}),
        at(reinterpret_cast<Vector*>(lines.data())) {}

  void Store(float* to) const {
    for (int64_t w = 0; w < count; ++w) {
      float total = 0.0f;
      for (int lane = 0; lane < kLanes; ++lane) total += at[w][lane];
      to[w] = total;
    }
  }

  int64_t count;
  std::vector<Line> lines;
  Vector* at;
};
