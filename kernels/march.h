// Samples of one ray at regular distances inside a ball, where an occupancy
// grid is occupied; for every backend.
#pragma once

#include <cmath>
#include <cstdint>

#include "core.h"

namespace dreamjax {

// One call; B batches, R rays, G cells per axis, M slots.
struct March {
  int64_t num_batches;
  int64_t num_rays;
  int32_t resolution;      // G, at most 1024
  int64_t num_slots;       // M
  int32_t num_candidates;  // per ray, at most
  float step;
  float bound;
  const float* origin;       // [B, R, 3]
  const float* direction;    // [B, R, 3], of length 1
  const float* jitter;       // [B, R]
  const uint8_t* occupancy;  // [B, G, G, bytes of G bits]
  float* distance;           // [B, M]
  float* width;              // [B, M]
  int32_t* ray;              // [B, M]
  int32_t* offset;           // [B, R+1]
  int32_t* overflow;         // [B]
};

// Bits of a row of cells along z: whole bytes.
DJ_HD int32_t BitsPerRow(int32_t resolution) {
  return (resolution + 7) / 8 * 8;
}

// Where a ray runs through the ball; near >= far if it does not.
struct Span {
  float near;
  float far;
};

DJ_HD Span Intersect(const float* origin, const float* direction, float bound) {
  // From the point that is closest to the centre: its distance rounds better
  // than the quadratic formula's difference of squares.
  const float middle = -(origin[0] * direction[0] + origin[1] * direction[1] +
                         origin[2] * direction[2]);
  float closest[3];
  for (int a = 0; a < 3; ++a) closest[a] = origin[a] + middle * direction[a];
  const float square = bound * bound - (closest[0] * closest[0] +
                                        closest[1] * closest[1] +
                                        closest[2] * closest[2]);
  if (!(square > 0.0f)) return {0.0f, 0.0f};
  const float half = std::sqrt(square), near = middle - half;
  return {near > 0.0f ? near : 0.0f, middle + half};
}

// A ray's candidates t_k, and the bits of the occupancy grid they fall into.
struct Candidates {
  Span span;
  float jitter;
  float step;
  int32_t resolution;
  int32_t row;     // BitsPerRow
  float start[3];  // in cells, t = 0
  float slope[3];  // in cells per unit of t

  DJ_HD float Distance(int32_t k) const {
    return span.near + (static_cast<float>(k) + jitter) * step;
  }

  // The bit of a cell. Clamped to the grid, NaN too.
  DJ_HD int32_t Bit(float distance) const {
    const float last = static_cast<float>(resolution - 1);
    int32_t cell[3];
    for (int a = 0; a < 3; ++a) {
      const float place = start[a] + distance * slope[a];
      const float clamped = place > 0.0f ? place : 0.0f;
      cell[a] = static_cast<int32_t>(clamped < last ? clamped : last);
    }
    return (cell[0] * resolution + cell[1]) * row + cell[2];
  }
};

DJ_HD Candidates CandidatesOf(const March& m, int64_t batch, int64_t ray) {
  const int64_t index = batch * m.num_rays + ray;
  const float* origin = m.origin + 3 * index;
  const float* direction = m.direction + 3 * index;
  const float cells_per_unit =
      static_cast<float>(m.resolution) / (2.0f * m.bound);
  Candidates candidates;
  candidates.span = Intersect(origin, direction, m.bound);
  candidates.jitter = m.jitter[index];
  candidates.step = m.step;
  candidates.resolution = m.resolution;
  candidates.row = BitsPerRow(m.resolution);
  for (int a = 0; a < 3; ++a) {
    candidates.start[a] = (origin[a] + m.bound) * cells_per_unit;
    candidates.slope[a] = direction[a] * cells_per_unit;
  }
  return candidates;
}

DJ_HD const uint8_t* OccupancyOf(const March& m, int64_t batch) {
  const int64_t g = m.resolution;
  return m.occupancy + batch * g * g * (BitsPerRow(m.resolution) / 8);
}

DJ_HD bool IsSet(const uint8_t* bits, int32_t bit) {
  return (bits[bit >> 3] >> (bit & 7) & 1) != 0;
}

// After pass 1, offset[r + 1] = number of samples of ray r. Pass 2: counts to
// offsets, as many as there are slots; the rest overflows.
inline void SumCounts(const March& m, int64_t batch) {
  int32_t* offset = m.offset + batch * (m.num_rays + 1);
  int64_t total = 0;
  offset[0] = 0;
  for (int64_t ray = 1; ray <= m.num_rays; ++ray) {
    total += offset[ray];
    offset[ray] = static_cast<int32_t>(total < m.num_slots ? total
                                                           : m.num_slots);
  }
  m.overflow[batch] = static_cast<int32_t>(
      total < m.num_slots ? 0 : total - m.num_slots);
}

// The slots that rays own, after pass 2; they come first.
DJ_HD int64_t NumUsed(const March& m, int64_t batch) {
  return m.offset[batch * (m.num_rays + 1) + m.num_rays];
}

// Pass 4, after the rays have filled theirs: clears slot i of all batches, for
// those that no ray owns.
struct ClearSlot {
  March m;
  DJ_HD void operator()(int64_t i) const {
    m.distance[i] = 0.0f;
    m.width[i] = 0.0f;
    m.ray[i] = 0;
  }
};

}  // namespace dreamjax
