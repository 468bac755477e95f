// A block of points on a level of the hash grid, for one instruction set
// (for_each_unit.h); included once for each.

#include "rows.h"

// Vectors of a block of points, one array per axis, zero beyond the last.
struct Vectors {
  alignas(64) float at[3][kPoints];
};

struct Block {
  alignas(64) int32_t index[8][kPoints];
  alignas(64) float fraction[3][kPoints];
  alignas(64) float corner[8][kPoints];  // a number per corner
};

// Vector loops. Each is a template, and below it the function that chooses its
// constants.

template <bool kDense>
DJ_VECTOR void LocateAll(const Level& level, const Vectors& position,
                         Block& __restrict block) {
  for (int i = 0; i < kPoints; ++i) {
    const Cell cell = Locate<kDense>(level, position.at[0][i],
                                     position.at[1][i], position.at[2][i]);
    for (int k = 0; k < 8; ++k) block.index[k][i] = cell.index[k];
    for (int axis = 0; axis < 3; ++axis) {
      block.fraction[axis][i] = cell.fraction[axis];
    }
  }
}

void LocateBlock(const Level& level, const Vectors& position, Block& block) {
  if (level.dense) return LocateAll<true>(level, position, block);
  return LocateAll<false>(level, position, block);
}

template <bool kSmooth>
DJ_VECTOR void AxesAt(const Block& block, int i, float scale, Axis axis[3]) {
  for (int a = 0; a < 3; ++a) {
    axis[a] = MakeAxis(block.fraction[a][i], scale, kSmooth);
  }
}

template <bool kSmooth>
DJ_VECTOR void WeightsAll(float scale, Block& block) {
  for (int i = 0; i < kPoints; ++i) {
    Axis a[3];
    AxesAt<kSmooth>(block, i, scale, a);
    for (int k = 0; k < 8; ++k) {
      block.corner[k][i] = Weight(a[0], a[1], a[2], k);
    }
  }
}

void FillWeights(float scale, bool smoothstep, Block& block) {
  if (smoothstep) return WeightsAll<true>(scale, block);
  return WeightsAll<false>(scale, block);
}

template <bool kSmooth>
DJ_VECTOR void WeightsAlongAll(float scale, const Vectors& direction,
                               Block& __restrict block) {
  for (int i = 0; i < kPoints; ++i) {
    Axis a[3];
    AxesAt<kSmooth>(block, i, scale, a);
    const float v[3] = {direction.at[0][i], direction.at[1][i],
                        direction.at[2][i]};
    for (int k = 0; k < 8; ++k) {
      block.corner[k][i] = WeightAlong(a[0], a[1], a[2], k, v);
    }
  }
}

void FillWeightsAlong(float scale, bool smoothstep, const Vectors& direction,
                      Block& block) {
  if (smoothstep) return WeightsAlongAll<true>(scale, direction, block);
  return WeightsAlongAll<false>(scale, direction, block);
}

template <bool kSmooth, bool kAlong>
DJ_VECTOR void SlopeAll(float scale, const Block& block,
                        const Vectors* direction, Vectors& __restrict sum) {
  for (int i = 0; i < kPoints; ++i) {
    Axis a[3];
    AxesAt<kSmooth>(block, i, scale, a);
    float s[8], slope[3];
    for (int k = 0; k < 8; ++k) s[k] = block.corner[k][i];
    if (kAlong) {
      const float v[3] = {direction->at[0][i], direction->at[1][i],
                          direction->at[2][i]};
      SlopeAlong(a[0], a[1], a[2], s, v, slope);
    } else {
      Slope(a[0], a[1], a[2], s, slope);
    }
    for (int axis = 0; axis < 3; ++axis) sum.at[axis][i] += slope[axis];
  }
}

void AddSlope(float scale, bool smoothstep, const Block& block, Vectors& sum) {
  if (smoothstep) return SlopeAll<true, false>(scale, block, nullptr, sum);
  return SlopeAll<false, false>(scale, block, nullptr, sum);
}

void AddSlopeAlong(float scale, bool smoothstep, const Block& block,
                   const Vectors& direction, Vectors& sum) {
  if (smoothstep) return SlopeAll<true, true>(scale, block, &direction, sum);
  return SlopeAll<false, true>(scale, block, &direction, sum);
}

// Table loops, for F features.

template <int F>
struct Features {
  // An entry's, or a point's on a level.
  typedef float Type __attribute__((vector_size(4 * F), aligned(4)));

  static DJ_VECTOR Type& At(float* from, int64_t index, int64_t stride = F) {
    return *reinterpret_cast<Type*>(from + index * stride);
  }
  static DJ_VECTOR const Type& At(const float* from, int64_t index,
                                  int64_t stride = F) {
    return *reinterpret_cast<const Type*>(from + index * stride);
  }
};

// Memory is asked for some points ahead of use: the rows of features, of which
// a level is too short a piece for a processor to see the pattern, and entries
// where the work on a point is too long for it to look beyond.

DJ_VECTOR void AskForRow(const float* rows, int i, int64_t stride) {
  __builtin_prefetch(rows + (i + 16) * stride);
}

template <int F>
DJ_VECTOR void AskForEntries(const float* entries, const Block& block, int i) {
  const int ahead = std::min(i + 8, kPoints - 1);
DJ_UNROLL(8)
  for (int k = 0; k < 8; ++k) {
    __builtin_prefetch(&Features<F>::At(entries, block.index[k][ahead]));
  }
}

template <int F>
void GatherPoints(const float* entries, const Block& block, int count,
                  int64_t stride, float* feature) {
  using Row = Features<F>;
  for (int i = 0; i < count; ++i) {
    AskForRow(feature, i, stride);
    AskForEntries<F>(entries, block, i);
    typename Row::Type sum = {};
DJ_UNROLL(8)
    for (int k = 0; k < 8; ++k) {
      sum += block.corner[k][i] * Row::At(entries, block.index[k][i]);
    }
    Row::At(feature, i, stride) = sum;
  }
}

template <int F>
void ScatterPoints(const float* cotangent, const Block& block, int count,
                   float* entries) {
  using Row = Features<F>;
  for (int i = 0; i < count; ++i) {
    const typename Row::Type g = Row::At(cotangent, i);
DJ_UNROLL(8)
    for (int k = 0; k < 8; ++k) {
      Row::At(entries, block.index[k][i]) += block.corner[k][i] * g;
    }
  }
}

// The numbers of all corners of a Vector's points.
template <int F>
DJ_VECTOR void DotVector(const float* entries, const float* cotangent,
                         int first, int64_t stride, Block& block) {
  for (int k = 0; k < 8; ++k) {
    Vector sum = {};
    for (int f = 0; f < F; f += 4) {
      Vector product[4];
DJ_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        product[i] =
            Join(cotangent + (first + i) * stride + f, kEveryFourth, stride) *
            Join(entries + f, block.index[k] + first + i, F);
      }
      Transpose(product);
DJ_UNROLL(4)
      for (int i = 0; i < 4; ++i) sum += product[i];
    }
    Write(sum, block.corner[k] + first);
  }
}

// The number of corner k: <cotangent, entry of the corner>.
template <int F>
void DotPoints(const float* entries, const float* cotangent, int count,
               int64_t stride, Block& block) {
  int i = 0;
  if constexpr (F % 4 == 0) {
    for (; i + kLanes <= count; i += kLanes) {
DJ_UNROLL(16)
      for (int lane = 0; lane < kLanes; ++lane) {
        AskForRow(cotangent, i + lane, stride);
      }
      DotVector<F>(entries, cotangent, i, stride, block);
    }
  }
  for (; i < count; ++i) {
    AskForRow(cotangent, i, stride);
    AskForEntries<F>(entries, block, i);
    const float* g = cotangent + i * stride;
    for (int k = 0; k < 8; ++k) {
      const float* entry = entries + int64_t{block.index[k][i]} * F;
      float sum = 0.0f;
      for (int f = 0; f < F; ++f) sum += g[f] * entry[f];
      block.corner[k][i] = sum;
    }
  }
}
