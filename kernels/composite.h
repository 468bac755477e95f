// Volume rendering of packed samples; for every backend.
#pragma once

#include <cstdint>
#include <cstring>

#include "core.h"

namespace dreamjax {

// 1 - exp(-depth) to three units in the last place, NaN for NaN.
//
// With x = -depth = n log 2 + r, expm1(x) = 2^n expm1(r) + (2^n - 1), and for
// expm1(r), |r| <= log(2) / 2, the first terms of its series. No branches and
// no calls: a compiler makes vector instructions of a loop of these.
DJ_HD float Absorbed(float depth) {
  // Beyond this nothing changes, and 2^n stays a normal number.
  float x = depth > 87.0f ? -87.0f : -depth;
  x = x > 87.0f ? 87.0f : x;
  // Adding 1.5 2^23 rounds, and leaves n in the lowest bits.
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r;
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127u) << 23;
  float power;
  memcpy(&power, &bits, sizeof(power));
  return (1.0f - power) - power * p;
}

// One call; B batches, R rays, M slots, C channels.
//   depth_i  = density_i width_i
//   T_i      = exp(-sum of depth_j over the ray's samples j < i)
//   weight_i = T_i (1 - exp(-depth_i))
struct Composite {
  int64_t num_batches;
  int64_t num_rays;
  int64_t num_slots;
  int64_t num_channels;
  const float* density;   // [B, M]
  const float* value;     // [B, M, C]
  const float* width;     // [B, M]
  const int32_t* offset;  // [B, R+1]
};

// The slots of a ray, inside [0, M] whatever the offsets say.
struct Slots {
  int64_t begin;
  int64_t end;
};

DJ_HD int64_t Clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : (x > high ? high : x);
}

DJ_HD Slots SlotsOf(const Composite& c, int64_t batch, int64_t ray) {
  const int32_t* offset = c.offset + batch * (c.num_rays + 1) + ray;
  const int64_t begin = Clamp(offset[0], 0, c.num_slots);
  const int64_t end = Clamp(offset[1], begin, c.num_slots);
  return {batch * c.num_slots + begin, batch * c.num_slots + end};
}

// The slots that rays own come first.
DJ_HD int64_t NumUsed(const Composite& c, int64_t batch) {
  const int32_t* offset = c.offset + batch * (c.num_rays + 1);
  return Clamp(offset[c.num_rays], 0, c.num_slots);
}

struct CompositeForward {
  Composite c;
  float* value_ray;  // [B, R, C]
  float* opacity;    // [B, R]
  float* weight;     // [B, M]
};

// Clears slot i of all batches; for those that no ray owns.
struct ClearWeight {
  CompositeForward forward;
  DJ_HD void operator()(int64_t i) const { forward.weight[i] = 0.0f; }
};

// With score_i = dL/dweight_i, through all three results,
//   dL/ddepth_i = T_{i+1} score_i - sum over j > i of weight_j score_j.
struct CompositeBackward {
  Composite c;
  const float* g_value_ray;  // [B, R, C]
  const float* g_opacity;    // [B, R]
  const float* g_weight;     // [B, M], or null for zeros
  float* g_density;          // [B, M]
  float* g_value;            // [B, M, C]
  float* g_width;            // [B, M], or null where nobody asks
};

// As ClearWeight.
struct ClearGradients {
  CompositeBackward backward;
  DJ_HD void operator()(int64_t i) const {
    const int64_t channels = backward.c.num_channels;
    backward.g_density[i] = 0.0f;
    if (backward.g_width != nullptr) backward.g_width[i] = 0.0f;
    for (int64_t k = 0; k < channels; ++k) {
      backward.g_value[i * channels + k] = 0.0f;
    }
  }
};

}  // namespace dreamjax
