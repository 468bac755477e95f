// Volume rendering of packed samples, one ray at a time; for every backend.
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

// What a slot absorbs, computed where it is needed.
struct Absorption {
  const Composite& c;
  DJ_HD float operator()(int64_t s) const {
    return Absorbed(c.density[s] * c.width[s]);
  }
};

struct CompositeForward {
  Composite c;
  float* value_ray;  // [B, R, C]
  float* opacity;    // [B, R]
  float* weight;     // [B, M]

  DJ_HD void operator()(int64_t i) const { Ray<0>(i, Absorption{c}); }

  // kChannels: C, or 0 for any; alpha_of: slot -> 1 - exp(-depth).
  template <int kChannels, class Alpha>
  DJ_HD void Ray(int64_t i, Alpha alpha_of) const {
    const Slots slots = SlotsOf(c, i / c.num_rays, i % c.num_rays);
    const int64_t channels = kChannels > 0 ? kChannels : c.num_channels;
    float near[kChannels > 0 ? kChannels : 1];
    float* result = value_ray + i * channels;
    float* sum = kChannels > 0 ? near : result;
    for (int64_t k = 0; k < channels; ++k) sum[k] = 0.0f;
    float left = 1.0f, total = 0.0f;
    for (int64_t s = slots.begin; s < slots.end; ++s) {
      const float alpha = alpha_of(s);
      const float w = left * alpha;
      left *= 1.0f - alpha;
      total += w;
      weight[s] = w;
      const float* value = c.value + s * channels;
      for (int64_t k = 0; k < channels; ++k) sum[k] += w * value[k];
    }
    opacity[i] = total;
    if (kChannels == 0) return;
    for (int64_t k = 0; k < channels; ++k) result[k] = sum[k];
  }
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
  const float* g_weight;     // [B, M]
  float* g_density;          // [B, M]
  float* g_value;            // [B, M, C]
  float* g_width;            // [B, M]

  DJ_HD void operator()(int64_t i) const { Ray<0>(i, Absorption{c}); }

  // As CompositeForward's.
  template <int kChannels, class Alpha>
  DJ_HD void Ray(int64_t i, Alpha alpha_of) const {
    const Slots slots = SlotsOf(c, i / c.num_rays, i % c.num_rays);
    const int64_t channels = kChannels > 0 ? kChannels : c.num_channels;
    float near[kChannels > 0 ? kChannels : 1];
    const float* g_sum = g_value_ray + i * channels;
    if (kChannels > 0) {
      for (int64_t k = 0; k < channels; ++k) near[k] = g_sum[k];
      g_sum = near;
    }
    // Front to back: T_{i+1} and weight_i, kept in two of the results.
    float left = 1.0f;
    for (int64_t s = slots.begin; s < slots.end; ++s) {
      const float alpha = alpha_of(s);
      g_width[s] = left * alpha;
      left *= 1.0f - alpha;
      g_density[s] = left;
    }
    // Back to front: the sum over all samples behind.
    float behind = 0.0f;
    for (int64_t s = slots.end; s-- > slots.begin;) {
      const float after = g_density[s], w = g_width[s];
      float score = g_weight[s] + g_opacity[i];
      const float* value = c.value + s * channels;
      float* g = g_value + s * channels;
      for (int64_t k = 0; k < channels; ++k) score += g_sum[k] * value[k];
      for (int64_t k = 0; k < channels; ++k) g[k] = w * g_sum[k];
      const float g_depth = after * score - behind;
      behind += w * score;
      g_density[s] = g_depth * c.width[s];
      g_width[s] = g_depth * c.density[s];
    }
  }
};

// As ClearWeight.
struct ClearGradients {
  CompositeBackward backward;
  DJ_HD void operator()(int64_t i) const {
    const int64_t channels = backward.c.num_channels;
    backward.g_density[i] = 0.0f;
    backward.g_width[i] = 0.0f;
    for (int64_t k = 0; k < channels; ++k) {
      backward.g_value[i * channels + k] = 0.0f;
    }
  }
};

}  // namespace dreamjax
