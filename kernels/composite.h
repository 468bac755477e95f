// Volume rendering of packed samples, one ray at a time; for every backend.
#pragma once

#include <cmath>
#include <cstdint>

#include "core.h"

namespace dreamjax {

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

// Whether no ray owns a slot; i counts the slots of all batches.
DJ_HD bool IsFree(const Composite& c, int64_t i) {
  const int64_t batch = i / c.num_slots, slot = i % c.num_slots;
  return slot >= c.offset[batch * (c.num_rays + 1) + c.num_rays];
}

struct CompositeForward {
  Composite c;
  float* value_ray;  // [B, R, C]
  float* opacity;    // [B, R]
  float* weight;     // [B, M]

  DJ_HD void operator()(int64_t i) const {
    const Slots slots = SlotsOf(c, i / c.num_rays, i % c.num_rays);
    float* sum = value_ray + i * c.num_channels;
    for (int64_t channel = 0; channel < c.num_channels; ++channel) {
      sum[channel] = 0.0f;
    }
    float left = 1.0f, total = 0.0f;
    for (int64_t s = slots.begin; s < slots.end; ++s) {
      const float alpha = -expm1f(-c.density[s] * c.width[s]);
      const float w = left * alpha;
      left *= 1.0f - alpha;
      total += w;
      weight[s] = w;
      const float* value = c.value + s * c.num_channels;
      for (int64_t channel = 0; channel < c.num_channels; ++channel) {
        sum[channel] += w * value[channel];
      }
    }
    opacity[i] = total;
  }
};

struct ClearFreeWeight {
  CompositeForward forward;
  DJ_HD void operator()(int64_t i) const {
    if (IsFree(forward.c, i)) forward.weight[i] = 0.0f;
  }
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

  DJ_HD void operator()(int64_t i) const {
    const Slots slots = SlotsOf(c, i / c.num_rays, i % c.num_rays);
    const float* g_sum = g_value_ray + i * c.num_channels;
    // Front to back: T_{i+1} and weight_i, kept in two of the results.
    float left = 1.0f;
    for (int64_t s = slots.begin; s < slots.end; ++s) {
      const float alpha = -expm1f(-c.density[s] * c.width[s]);
      g_width[s] = left * alpha;
      left *= 1.0f - alpha;
      g_density[s] = left;
    }
    // Back to front: the sum over all samples behind.
    float behind = 0.0f;
    for (int64_t s = slots.end; s-- > slots.begin;) {
      const float after = g_density[s], w = g_width[s];
      float score = g_weight[s] + g_opacity[i];
      const int64_t row = s * c.num_channels;
      for (int64_t channel = 0; channel < c.num_channels; ++channel) {
        score += g_sum[channel] * c.value[row + channel];
        g_value[row + channel] = w * g_sum[channel];
      }
      const float g_depth = after * score - behind;
      behind += w * score;
      g_density[s] = g_depth * c.width[s];
      g_width[s] = g_depth * c.density[s];
    }
  }
};

struct ClearFreeGradients {
  CompositeBackward backward;
  DJ_HD void operator()(int64_t i) const {
    const Composite& c = backward.c;
    if (!IsFree(c, i)) return;
    backward.g_density[i] = 0.0f;
    backward.g_width[i] = 0.0f;
    for (int64_t channel = 0; channel < c.num_channels; ++channel) {
      backward.g_value[i * c.num_channels + channel] = 0.0f;
    }
  }
};

}  // namespace dreamjax
