// Multiresolution hash encoding (Müller et al. 2022): the arithmetic of one
// point on one level, for every backend. Conventions of tiny-cuda-nn.
#pragma once

#include <cstdint>

#include "core.h"

namespace dreamjax {

constexpr int kMaxLevels = 32;

struct Level {
  float scale;         // cells along the unit interval
  int32_t resolution;  // vertices per axis
  int32_t size;        // entries; a power of two if hashed
  int64_t offset;      // first entry in the table
  bool dense;          // entry = x + resolution (y + resolution z)
};

struct HashGrid {
  int num_levels;
  int num_features;  // per level
  int64_t num_entries;
  bool smoothstep;
  Level level[kMaxLevels];
};

// One call of an operation. What an operation does not read is null.
struct HashGridCall {
  HashGrid grid;
  int64_t num_batches;
  int64_t num_points;
  const float* table;      // [B, T, F]
  const float* position;   // [B, N, 3]
  const float* cotangent;  // [B, N, L F]
  const float* direction;  // [B, N, 3]; if given, the weights' derivative
                           // along it takes the place of the weights
  float* result;
};

// result[B, N, L F] = sum over corners of weight * table.
struct HashGather : HashGridCall {};
// result[B, T, F] = sum over points and corners of weight * cotangent.
struct HashScatter : HashGridCall {
  // [B, N, L F]; if given, with a direction, the weights' own cotangents, whose
  // products are added to those of their derivatives.
  const float* plain = nullptr;
};
// result[B, N, 3] = d/dx of <cotangent, HashGather>.
struct HashSlope : HashGridCall {};

// Corner k of a cell is its lower vertex plus (k & 1, k >> 1 & 1, k >> 2).
struct Cell {
  int32_t index[8];   // entries of the corners, within the level
  int32_t low[3];     // the lower vertex
  float fraction[3];  // of the point in the cell, in [0, 1] unless outside
};

// The cell of a point. Whatever the point, NaN included, the entries are inside
// the level: only the fraction leaves [0, 1].
template <bool kDense>
DJ_HD Cell Locate(const Level& level, float x, float y, float z) {
  const float last = static_cast<float>(level.resolution - 1);
  const float place[3] = {x * level.scale + 0.5f, y * level.scale + 0.5f,
                          z * level.scale + 0.5f};
  Cell cell;
  int32_t* low = cell.low;
  for (int axis = 0; axis < 3; ++axis) {
    // This order of the comparisons sends NaN to 0.
    float clamped = place[axis] > 0.0f ? place[axis] : 0.0f;
    clamped = clamped < last ? clamped : last;
    low[axis] = static_cast<int32_t>(clamped);
    cell.fraction[axis] = place[axis] - static_cast<float>(low[axis]);
  }
  if (kDense) {
    const int32_t row = level.resolution, slice = row * row;
    const int32_t first = low[0] + row * low[1] + slice * low[2];
    for (int k = 0; k < 8; ++k) {
      const int32_t index =
          first + (k & 1) + (k >> 1 & 1) * row + (k >> 2) * slice;
      cell.index[k] = index < level.size ? index : index - level.size;
    }
  } else {
    // Eq. 4 with primes 1, 2654435761, 805459861.
    const uint32_t mask = static_cast<uint32_t>(level.size) - 1;
    const uint32_t hash_x = static_cast<uint32_t>(low[0]);
    const uint32_t hash_y = static_cast<uint32_t>(low[1]) * 2654435761u;
    const uint32_t hash_z = static_cast<uint32_t>(low[2]) * 805459861u;
    for (int k = 0; k < 8; ++k) {
      cell.index[k] = static_cast<int32_t>(
          ((k & 1 ? hash_x + 1 : hash_x) ^
           (k & 2 ? hash_y + 2654435761u : hash_y) ^
           (k & 4 ? hash_z + 805459861u : hash_z)) &
          mask);
    }
  }
  return cell;
}

// Weights of the lower and upper vertex along one axis, and the upper weight's
// first and second derivative with respect to the position; the lower
// weight's have the opposite sign.
struct Axis {
  float weight[2];
  float slope;
  float curvature;
};

DJ_HD Axis MakeAxis(float f, float scale, bool smoothstep) {
  const float upper = smoothstep ? f * f * (3.0f - 2.0f * f) : f;
  const float slope = smoothstep ? 6.0f * f * (1.0f - f) : 1.0f;
  const float curvature = smoothstep ? 6.0f - 12.0f * f : 0.0f;
  return {{1.0f - upper, upper}, slope * scale, curvature * scale * scale};
}

// The weight of corner k.
DJ_HD float Weight(const Axis& x, const Axis& y, const Axis& z, int k) {
  return x.weight[k & 1] * y.weight[k >> 1 & 1] * z.weight[k >> 2];
}

// sum_k s_k grad weight_k, for a number s_k per corner.
DJ_HD void Slope(const Axis& x, const Axis& y, const Axis& z, const float* s,
                 float* result) {
  const float z0 = z.weight[0], z1 = z.weight[1];
  const float y0 = y.weight[0], y1 = y.weight[1];
  const float x0 = x.weight[0], x1 = x.weight[1];
  result[0] = x.slope * (z0 * (y0 * (s[1] - s[0]) + y1 * (s[3] - s[2])) +
                         z1 * (y0 * (s[5] - s[4]) + y1 * (s[7] - s[6])));
  result[1] = y.slope * (z0 * (x0 * (s[2] - s[0]) + x1 * (s[3] - s[1])) +
                         z1 * (x0 * (s[6] - s[4]) + x1 * (s[7] - s[5])));
  result[2] = z.slope * (y0 * (x0 * (s[4] - s[0]) + x1 * (s[5] - s[1])) +
                         y1 * (x0 * (s[6] - s[2]) + x1 * (s[7] - s[3])));
}

// The derivative of the weight of corner k along v: v . grad weight_k.
DJ_HD float WeightAlong(const Axis& x, const Axis& y, const Axis& z, int k,
                        const float* v) {
  const float wx = x.weight[k & 1], dx = k & 1 ? x.slope : -x.slope;
  const float wy = y.weight[k >> 1 & 1], dy = k & 2 ? y.slope : -y.slope;
  const float wz = z.weight[k >> 2], dz = k & 4 ? z.slope : -z.slope;
  return v[0] * dx * wy * wz + v[1] * wx * dy * wz + v[2] * wx * wy * dz;
}

// sum_k s_k grad (v . grad weight_k).
DJ_HD void SlopeAlong(const Axis& x, const Axis& y, const Axis& z,
                      const float* s, const float* v, float* result) {
  result[0] = result[1] = result[2] = 0.0f;
  DJ_UNROLL(8)
  for (int k = 0; k < 8; ++k) {
    const float sign_x = k & 1 ? s[k] : -s[k];
    const float sign_y = k & 2 ? 1.0f : -1.0f;
    const float sign_z = k & 4 ? 1.0f : -1.0f;
    const float wx = x.weight[k & 1], dx = sign_x * x.slope;
    const float wy = y.weight[k >> 1 & 1], dy = sign_y * y.slope;
    const float wz = z.weight[k >> 2], dz = sign_z * z.slope;
    const float xy = dx * dy * wz, xz = dx * wy * dz, yz = s[k] * wx * dy * dz;
    result[0] += v[0] * sign_x * x.curvature * wy * wz + v[1] * xy + v[2] * xz;
    result[1] +=
        v[0] * xy + v[1] * s[k] * wx * sign_y * y.curvature * wz + v[2] * yz;
    result[2] +=
        v[0] * xz + v[1] * yz + v[2] * s[k] * wx * wy * sign_z * z.curvature;
  }
}

}  // namespace dreamjax
