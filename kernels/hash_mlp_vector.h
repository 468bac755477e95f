// Hash encoding and network on a block of points, for one instruction set
// (for_each_unit.h); included once for each.
// Arrays are [rows, kPoints] unless they say otherwise.

#include "mlp_block.h"

constexpr int kParts = kLanes / 4;  // of a Vector, each for a point

// Where a block's points are on a level.
struct Cells {
  alignas(64) int32_t index[8][kPoints];
  alignas(64) float upper[3][kPoints];  // weight of the upper vertex
  alignas(64) float slope[3][kPoints];  // its derivative
};

template <bool kDense, bool kSmooth>
DJ_VECTOR void LocateAll(const Level& level, const float* __restrict position,
                         Cells& __restrict cells) {
  for (int i = 0; i < kPoints; ++i) {
    const Cell cell = Locate<kDense>(level, position[i], position[kPoints + i],
                                     position[2 * kPoints + i]);
    for (int k = 0; k < 8; ++k) cells.index[k][i] = cell.index[k];
    for (int axis = 0; axis < 3; ++axis) {
      const Axis a = MakeAxis(cell.fraction[axis], level.scale, kSmooth);
      cells.upper[axis][i] = a.weight[1];
      cells.slope[axis][i] = a.slope;
    }
  }
}

void LocateBlock(const HashGrid& grid, const Level& level,
                 const float* position, Cells& cells) {
  if (level.dense) {
    if (grid.smoothstep) LocateAll<true, true>(level, position, cells);
    else LocateAll<true, false>(level, position, cells);
  } else {
    if (grid.smoothstep) LocateAll<false, true>(level, position, cells);
    else LocateAll<false, false>(level, position, cells);
  }
}

// Four Vectors of points' features become one of points per feature.
DJ_VECTOR void StoreTransposed(const Vector& a, const Vector& b,
                               const Vector& c, const Vector& d, float* to) {
  Vector at[4] = {a, b, c, d};
  Transpose(at);
DJ_UNROLL(4)
  for (int f = 0; f < 4; ++f) Write(at[f], to + f * kPoints);
}

// Four features of a point's cell, and their derivatives along the axes in
// units of cells' weights.
struct Interpolated {
  Vector value, along[3];
};

template <int i>
DJ_VECTOR void Interpolate(const float* entries, int64_t stride,
                           const Cells& cells, int first, Interpolated& to) {
  const Vector x = Spread<i>(Read(cells.upper[0] + first));
  const Vector y = Spread<i>(Read(cells.upper[1] + first));
  const Vector z = Spread<i>(Read(cells.upper[2] + first));
  Vector value[4], along_x[4];
DJ_UNROLL(4)
  for (int k = 0; k < 4; ++k) {
    const Vector low =
        Join(entries, cells.index[2 * k] + first + i, stride);
    along_x[k] =
        Join(entries, cells.index[2 * k + 1] + first + i, stride) - low;
    value[k] = Fma(x, along_x[k], low);
  }
  const Vector along_y0 = value[1] - value[0], along_y1 = value[3] - value[2];
  const Vector value0 = Fma(y, along_y0, value[0]);
  const Vector value1 = Fma(y, along_y1, value[2]);
  const Vector x0 = Fma(y, along_x[1] - along_x[0], along_x[0]);
  const Vector x1 = Fma(y, along_x[3] - along_x[2], along_x[2]);
  to.along[0] = Fma(z, x1 - x0, x0);
  to.along[1] = Fma(z, along_y1 - along_y0, along_y0);
  to.along[2] = value1 - value0;
  to.value = Fma(z, to.along[2], value0);
}

// Four features of a block on a level; along[axis] unless that is null.
template <bool kWithSlope>
void InterpolateBlock(const float* entries, int64_t stride, const Cells& cells,
                      float* value, float* const along[3]) {
  for (int first = 0; first < kPoints; first += kLanes) {
    Interpolated at[4];
    Interpolate<0>(entries, stride, cells, first, at[0]);
    Interpolate<1>(entries, stride, cells, first, at[1]);
    Interpolate<2>(entries, stride, cells, first, at[2]);
    Interpolate<3>(entries, stride, cells, first, at[3]);
    StoreTransposed(at[0].value, at[1].value, at[2].value, at[3].value,
                    value + first);
    if (!kWithSlope) continue;
DJ_UNROLL(3)
    for (int a = 0; a < 3; ++a) {
      StoreTransposed(at[0].along[a], at[1].along[a], at[2].along[a],
                      at[3].along[a], along[a] + first);
    }
  }
}

// The arrays of a block beyond the network's own.
struct HashScratch {
  explicit HashScratch(const HashMlp& h)
      : network(h.mlp), seeded(h.mlp) {
    const int64_t inputs = Inputs(h.mlp);
    const int64_t rows = 12 + 3 * h.grid.num_levels + 3 * inputs;
    lines.reset(new Line[rows * kPoints / kLineFloats]);
    position = lines[0].at;
    direction = position + 3 * kPoints;
    slope = direction + 3 * kPoints;
    ones = slope + 3 * kPoints;
    cell_slope = ones + 3 * kPoints;
    along[0] = cell_slope + 3 * h.grid.num_levels * kPoints;
    along[1] = along[0] + inputs * kPoints;
    along[2] = along[1] + inputs * kPoints;
    std::fill(ones, ones + kPoints, 1.0f);
  }

  Scratch network;
  Scratch seeded;  // deltas of the first output alone
  std::unique_ptr<Line[]> lines;  // not cleared
  float* position;
  float* direction;   // cotangent of the slope
  float* slope;
  float* ones;
  float* cell_slope;  // [L, 3, kPoints]
  float* along[3];    // [L F, kPoints] each
  Cells cells;
};

const float* EntriesOf(const HashMlp& h, int64_t batch, const Level& level) {
  return h.table +
         (batch * h.grid.num_entries + level.offset) * h.grid.num_features;
}

// Features of a block, as the network's input, and what slopes are made of.
template <bool kWithSlope>
void Encode(const HashMlp& h, int64_t batch, const Rows& rows,
            HashScratch& s) {
  const HashGrid& grid = h.grid;
  const int features = grid.num_features;
  LoadRows(h.position, 3, rows.first, rows.count, s.position);
  const Cells& cells = s.cells;
  for (int l = 0; l < grid.num_levels; ++l) {
    LocateBlock(grid, grid.level[l], s.position, s.cells);
    const float* entries = EntriesOf(h, batch, grid.level[l]);
    for (int f = 0; f < features; f += 4) {
      const int row = (l * features + f) * kPoints;
      float* const along[3] = {s.along[0] + row, s.along[1] + row,
                               s.along[2] + row};
      InterpolateBlock<kWithSlope>(entries + f, features, cells,
                                   s.network.layer[0] + row, along);
    }
    if (kWithSlope) {
      for (int axis = 0; axis < 3; ++axis) {
        std::copy(cells.slope[axis], cells.slope[axis] + kPoints,
                  s.cell_slope + (3 * l + axis) * kPoints);
      }
    }
  }
}

// seeded.delta[0] = d output_0/dE, after the hidden layers are known.
void Seed(const Mlp& m, const float* weight, HashScratch& s) {
  const int last = m.num_matrices - 1;
  const float* column = weight + MatrixAt(m, last);
  float* to = s.seeded.delta[last];
  for (int k = 0; k < m.size[last]; ++k) {
    const Vector spread = column[k * Outputs(m)] - Vector{};
    const float* gate = s.network.layer[last] + k * kPoints;
    for (int p = 0; p < kPoints; p += kLanes) {
      const Vector x =
          last == 0 ? spread
                    : (Read(gate + p) > 0.0f ? spread : Vector{});
      Write(x, to + k * kPoints + p);
    }
  }
  for (int l = last - 1; l >= 0; --l) {
    if (l > 0) {
      Multiply<Then::kGate>(Backwards(m, weight, l), s.seeded.delta[l + 1],
                            s.network.layer[l], s.seeded.delta[l]);
    } else {
      Multiply<Then::kKeep>(Backwards(m, weight, l), s.seeded.delta[l + 1],
                            s.seeded.delta[l + 1], s.seeded.delta[l]);
    }
  }
}

// slope[axis] = sum over features of seeded.delta[0] dE/dx.
void Slope(const HashGrid& grid, HashScratch& s) {
  const int features = grid.num_features;
  for (int axis = 0; axis < 3; ++axis) {
    for (int p = 0; p < kPoints; p += kLanes) {
      Vector total = {};
      for (int l = 0; l < grid.num_levels; ++l) {
        Vector sum = {};
        for (int row = l * features; row < (l + 1) * features; ++row) {
          sum = Fma(Read(s.along[axis] + row * kPoints + p),
                    Read(s.seeded.delta[0] + row * kPoints + p), sum);
        }
        total = Fma(sum, Read(s.cell_slope + (3 * l + axis) * kPoints + p),
                    total);
      }
      Write(total, s.slope + axis * kPoints + p);
    }
  }
}

void RunBlock(const HashMlpValue& h, int64_t batch, const float* weight,
              const Rows& rows, HashScratch& s) {
  const Mlp& m = h.mlp;
  const int last = m.num_matrices - 1;
  Scratch& n = s.network;
  if (h.slope == nullptr) Encode<false>(h, batch, rows, s);
  else Encode<true>(h, batch, rows, s);
  Hide(m, weight, n);
  Multiply<Then::kKeep>(Forwards(m, weight, last), n.layer[last],
                        n.layer[last], n.delta[last + 1]);
  StoreRows(n.delta[last + 1], Outputs(m), rows.first, rows.count, h.output);
  if (h.slope == nullptr) return;
  Seed(m, weight, s);
  Slope(h.grid, s);
  StoreRows(s.slope, 3, rows.first, rows.count, h.slope);
}

// network.spare[0] = sum over axes of direction dE/dx.
void Along(const HashGrid& grid, HashScratch& s) {
  const int features = grid.num_features;
  for (int l = 0; l < grid.num_levels; ++l) {
    for (int p = 0; p < kPoints; p += kLanes) {
      Vector step[3];
      for (int axis = 0; axis < 3; ++axis) {
        step[axis] = Read(s.cell_slope + (3 * l + axis) * kPoints + p) *
                     Read(s.direction + axis * kPoints + p);
      }
      for (int row = l * features; row < (l + 1) * features; ++row) {
        const int at = row * kPoints + p;
        Vector sum = Read(s.along[0] + at) * step[0];
        sum = Fma(Read(s.along[1] + at), step[1], sum);
        sum = Fma(Read(s.along[2] + at), step[2], sum);
        Write(sum, s.network.spare[0] + at);
      }
    }
  }
}

// Adds the slope's part of the gradient of the weights to its sums.
void AddSlopeWeights(const Mlp& m, const float* weight, HashScratch& s,
                     Vector* sum) {
  const int last = m.num_matrices - 1;
  Scratch& n = s.network;
  for (int l = 0; l < last; ++l) {
    AddOuter(n.spare[l % 2], m.size[l], s.seeded.delta[l + 1], m.size[l + 1],
             m.size[l + 1], sum + MatrixAt(m, l));
    Multiply<Then::kGate>(Forwards(m, weight, l), n.spare[l % 2],
                          n.layer[l + 1], n.spare[(l + 1) % 2]);
  }
  AddOuter(n.spare[last % 2], m.size[last], s.ones, 1, Outputs(m),
           sum + MatrixAt(m, last));
}

// to[L, N, F] from [L F, kPoints]; `row` counts the points of a batch.
void StoreLevels(const HashGrid& grid, const float* from, int64_t num_points,
                 int64_t row, int count, float* to) {
  const int features = grid.num_features;
  for (int l = 0; l < grid.num_levels; ++l) {
    StoreRows(from + l * features * kPoints, features, l * num_points + row,
              count, to);
  }
}

void RunBlock(const HashMlpPull& h, int64_t batch, const float* weight,
              const Rows& rows, HashScratch& s, Vector* sum) {
  const Mlp& m = h.mlp;
  Scratch& n = s.network;
  const bool with_slope = h.slope_cotangent != nullptr;
  if (with_slope) Encode<true>(h, batch, rows, s);
  else Encode<false>(h, batch, rows, s);
  LoadRows(h.cotangent, Outputs(m), rows.first, rows.count,
           n.delta[m.num_matrices]);
  Hide(m, weight, n);
  PullBack(m, weight, n);
  Multiply<Then::kKeep>(Backwards(m, weight, 0), n.delta[1], n.delta[1],
                        n.delta[0]);
  for (int l = 0; l < m.num_matrices; ++l) {
    AddOuter(n.layer[l], m.size[l], n.delta[l + 1], m.size[l + 1],
             m.size[l + 1], sum + MatrixAt(m, l));
  }
  const int64_t inputs = Inputs(m), num_points = m.num_points;
  const int64_t row = rows.first - batch * num_points;
  float* pull = h.pull + batch * num_points * inputs;
  StoreLevels(h.grid, n.delta[0], num_points, row, rows.count, pull);
  if (!with_slope) return;
  LoadRows(h.slope_cotangent, 3, rows.first, rows.count, s.direction);
  Seed(m, weight, s);
  Along(h.grid, s);
  AddSlopeWeights(m, weight, s, sum);
  StoreLevels(h.grid, s.seeded.delta[0], num_points, row, rows.count,
              pull + m.num_batches * num_points * inputs);
}

void RunPoints(const HashMlpValue& h, int64_t batch, int64_t begin,
               int64_t end) {
  const float* weight = h.mlp.weight + batch * NumWeights(h.mlp);
  const auto scratch = std::make_unique<HashScratch>(h);
  for (int64_t i = begin; i < end; i += kPoints) {
    const int count = static_cast<int>(std::min<int64_t>(kPoints, end - i));
    RunBlock(h, batch, weight, {batch * h.mlp.num_points + i, count},
             *scratch);
  }
}

void RunPoints(const HashMlpPull& h, int64_t batch, int64_t begin, int64_t end,
               float* partial) {
  const float* weight = h.mlp.weight + batch * NumWeights(h.mlp);
  const auto scratch = std::make_unique<HashScratch>(h);
  Sums sums(NumWeights(h.mlp));
  for (int64_t i = begin; i < end; i += kPoints) {
    const int count = static_cast<int>(std::min<int64_t>(kPoints, end - i));
    RunBlock(h, batch, weight, {batch * h.mlp.num_points + i, count},
             *scratch, sums.at);
  }
  sums.Store(partial);
}

// Adds `parts` to the entries of corner k of a Vector's points.
template <int g>
DJ_VECTOR void AddPart(const Vector& parts, const int32_t* index,
                       int64_t stride, float* entries) {
  FourAnywhere* to = reinterpret_cast<FourAnywhere*>(
      entries + index[4 * g] * stride);
  *to += Part<g>(parts);
}

DJ_VECTOR void AddParts(const Vector& parts, const int32_t* index,
                        int64_t stride, float* entries) {
  AddPart<0>(parts, index, stride, entries);
  if constexpr (kParts > 1) AddPart<1>(parts, index, stride, entries);
  if constexpr (kParts > 2) {
    AddPart<2>(parts, index, stride, entries);
    AddPart<3>(parts, index, stride, entries);
  }
}

// What is to be scattered: a with the weights, b with their derivatives.
struct Pull {
  Vector a, b;
};

// Splits it between the two vertices of an axis.
template <bool kWithSlope>
DJ_VECTOR void Split(const Pull& from, const Vector& upper, const Vector& step,
                     Pull& low, Pull& high) {
  high.a = upper * from.a;
  if (kWithSlope) high.a = Fma(step, from.b, high.a);
  low.a = from.a - high.a;
  if (!kWithSlope) return;
  high.b = upper * from.b;
  low.b = from.b - high.b;
}

// Four features of the points first + i + 4 g.
template <int i, bool kWithSlope>
DJ_VECTOR void Scatter(const Cells& cells, int first, const Pull& pull,
                       int64_t stride, float* entries) {
  Vector upper[3], step[3];
DJ_UNROLL(3)
  for (int axis = 0; axis < 3; ++axis) {
    upper[axis] = Spread<i>(Read(cells.upper[axis] + first));
    if (kWithSlope) step[axis] = Spread<i>(Read(cells.slope[axis] + first));
  }
  Pull half[2];
  Split<kWithSlope>(pull, upper[2], step[2], half[0], half[1]);
DJ_UNROLL(2)
  for (int z = 0; z < 2; ++z) {
    Pull quarter[2];
    Split<kWithSlope>(half[z], upper[1], step[1], quarter[0], quarter[1]);
DJ_UNROLL(2)
    for (int y = 0; y < 2; ++y) {
      Vector high = upper[0] * quarter[y].a;
      if (kWithSlope) high = Fma(step[0], quarter[y].b, high);
      const int k = 4 * z + 2 * y;
      AddParts(quarter[y].a - high, cells.index[k] + first + i, stride,
               entries);
      AddParts(high, cells.index[k + 1] + first + i, stride, entries);
    }
  }
}

template <int i, bool kWithSlope>
DJ_VECTOR void ScatterRows(const Cells& cells, int first, const float* a,
                           const float* b, int64_t stride, float* entries) {
  Pull pull;
  pull.a = Join(a + (first + i) * stride, kEveryFourth, stride);
  if (kWithSlope) pull.b = Join(b + (first + i) * stride, kEveryFourth, stride);
  Scatter<i, kWithSlope>(cells, first, pull, stride, entries);
}

// Adds a block to a level. a, b: [kPoints, F].
template <bool kWithSlope>
void ScatterBlock(const Cells& cells, const float* a, const float* b,
                  int features, float* entries) {
  for (int f = 0; f < features; f += 4) {
    for (int first = 0; first < kPoints; first += kLanes) {
      ScatterRows<0, kWithSlope>(cells, first, a + f, b + f, features,
                                 entries + f);
      ScatterRows<1, kWithSlope>(cells, first, a + f, b + f, features,
                                 entries + f);
      ScatterRows<2, kWithSlope>(cells, first, a + f, b + f, features,
                                 entries + f);
      ScatterRows<3, kWithSlope>(cells, first, a + f, b + f, features,
                                 entries + f);
    }
  }
}

// The points' places on a level; steps are along the cotangent of the slope.
void PrepareBlock(const HashMlp& h, const Level& level, const Rows& rows,
                  Cells& cells) {
  alignas(64) float position[3 * kPoints], direction[3 * kPoints];
  LoadRows(h.position, 3, rows.first, rows.count, position);
  LocateBlock(h.grid, level, position, cells);
  if (h.slope_cotangent == nullptr) return;
  LoadRows(h.slope_cotangent, 3, rows.first, rows.count, direction);
  for (int axis = 0; axis < 3; ++axis) {
    for (int i = 0; i < kPoints; ++i) {
      cells.slope[axis][i] *= direction[axis * kPoints + i];
    }
  }
}

// All points of a batch on one level.
void RunLevel(const HashMlpScatter& h, int64_t batch, int l) {
  const Level& level = h.grid.level[l];
  const int features = h.grid.num_features;
  const int64_t num_points = h.mlp.num_points, used = NumUsed(h, batch);
  float* entries =
      h.table_gradient +
      (batch * h.grid.num_entries + level.offset) * features;
  std::fill(entries, entries + int64_t{level.size} * features, 0.0f);
  const float* a =
      h.pull + (batch * h.grid.num_levels + l) * num_points * features;
  const float* b =
      a + h.mlp.num_batches * h.grid.num_levels * num_points * features;
  const bool with_slope = h.slope_cotangent != nullptr;
  Cells cells;
  for (int64_t i = 0; i < used; i += kPoints) {
    const int64_t count = std::min<int64_t>(kPoints, used - i);
    PrepareBlock(h, level, {batch * num_points + i, static_cast<int>(count)},
                 cells);
    const float* block_a = a + i * features;
    const float* block_b = b + i * features;
    alignas(64) float last[2][8 * kPoints];
    if (count < kPoints) {
      std::fill(last[0], last[0] + 8 * kPoints, 0.0f);
      std::fill(last[1], last[1] + 8 * kPoints, 0.0f);
      std::copy(block_a, block_a + count * features, last[0]);
      if (with_slope) {
        std::copy(block_b, block_b + count * features, last[1]);
      }
      block_a = last[0];
      block_b = last[1];
    }
    if (with_slope) {
      ScatterBlock<true>(cells, block_a, block_b, features, entries);
    } else {
      ScatterBlock<false>(cells, block_a, block_a, features, entries);
    }
  }
}
