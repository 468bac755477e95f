// Volume rendering on a GPU: one warp per ray, its lanes on consecutive
// samples; what lies between a sample and the camera is a scan over the warp.

#include "composite.h"
#include "launch.h"

namespace dreamjax {
namespace {

// Channels that a lane sums at a time, in registers.
constexpr int kChannels = 8;

// What 32 consecutive samples of a ray do to the light, on each of their lanes.
struct Passage {
  float alpha;   // 1 - exp(-depth) of the lane's sample, 0 without one
  float before;  // light that reaches it
  float after;   // light that leaves it
};

// `left` is the light that reaches the first lane, then what leaves the last.
__device__ Passage Pass(const Composite& c, int64_t slot, bool is_there,
                        int lane, float& left) {
  Passage p;
  p.alpha = is_there ? Absorbed(c.density[slot] * c.width[slot]) : 0.0f;
  float through = 1.0f - p.alpha;
  for (int step = 1; step < kWarp; step *= 2) {
    const float other = __shfl_up_sync(kAllLanes, through, step);
    if (lane >= step) through *= other;
  }
  const float through_last = __shfl_up_sync(kAllLanes, through, 1);
  p.before = lane == 0 ? left : left * through_last;
  p.after = left * through;
  left = __shfl_sync(kAllLanes, p.after, kWarp - 1);
  return p;
}

__device__ float WarpSum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, step);
  }
  return x;
}

struct ForwardRay {
  CompositeForward f;
  __device__ void operator()(int64_t i, int lane) const {
    const Composite& c = f.c;
    const Slots slots = SlotsOf(c, i / c.num_rays, i % c.num_rays);
    float left = 1.0f, total = 0.0f;
    int64_t channel = 0;
    do {
      float sum[kChannels] = {};
      for (int64_t first = slots.begin; first < slots.end; first += kWarp) {
        const int64_t s = first + lane;
        const bool is_there = s < slots.end;
        if (channel == 0) {
          const Passage p = Pass(c, s, is_there, lane, left);
          const float weight = p.before * p.alpha;
          total += weight;
          if (is_there) f.weight[s] = weight;
        }
        if (!is_there) continue;
        const float weight = f.weight[s];
        const float* value = c.value + s * c.num_channels + channel;
        for (int k = 0; k < kChannels; ++k) {
          if (channel + k < c.num_channels) sum[k] += weight * value[k];
        }
      }
      for (int k = 0; k < kChannels; ++k) {
        if (channel + k >= c.num_channels) break;
        const float whole = WarpSum(sum[k]);
        if (lane == 0) f.value_ray[i * c.num_channels + channel + k] = whole;
      }
      channel += kChannels;
    } while (channel < c.num_channels);
    total = WarpSum(total);
    if (lane == 0) f.opacity[i] = total;
  }
};

struct BackwardRay {
  CompositeBackward b;
  __device__ void operator()(int64_t i, int lane) const {
    const Composite& c = b.c;
    const Slots slots = SlotsOf(c, i / c.num_rays, i % c.num_rays);
    const float* g_sum = b.g_value_ray + i * c.num_channels;
    // Front to back: T_i, kept in a result; the other factor is as soon made
    // anew from what is read again anyway.
    float left = 1.0f;
    int64_t first = slots.begin;
    for (; first < slots.end; first += kWarp) {
      const int64_t s = first + lane;
      const bool is_there = s < slots.end;
      const Passage p = Pass(c, s, is_there, lane, left);
      if (is_there) b.g_density[s] = p.before;
    }
    // Back to front: the sum over all samples behind.
    float behind = 0.0f;
    while (first > slots.begin) {
      first -= kWarp;
      const int64_t s = first + lane;
      const bool is_there = s < slots.end;
      float density = 0.0f, width = 0.0f;
      float after = 0.0f, score = 0.0f, weight = 0.0f;
      if (is_there) {
        density = c.density[s];
        width = c.width[s];
        const float before = b.g_density[s];
        const float alpha = Absorbed(density * width);
        after = before * (1.0f - alpha);
        weight = before * alpha;
        score = b.g_opacity[i];
        if (b.g_weight != nullptr) score += b.g_weight[s];
        const float* value = c.value + s * c.num_channels;
        float* g = b.g_value + s * c.num_channels;
        for (int64_t k = 0; k < c.num_channels; ++k) {
          score += g_sum[k] * value[k];
          g[k] = weight * g_sum[k];
        }
      }
      // From this lane to the last one; the next lane's is what lies behind.
      float from_here = weight * score;
      for (int step = 1; step < kWarp; step *= 2) {
        const float other = __shfl_down_sync(kAllLanes, from_here, step);
        if (lane + step < kWarp) from_here += other;
      }
      const float from_next = __shfl_down_sync(kAllLanes, from_here, 1);
      if (is_there) {
        const float g_depth =
            after * score - (lane + 1 < kWarp ? behind + from_next : behind);
        b.g_density[s] = g_depth * width;
        if (b.g_width != nullptr) b.g_width[s] = g_depth * density;
      }
      behind += __shfl_sync(kAllLanes, from_here, 0);
    }
  }
};

template <class Ray, class Clear>
const char* Queue(CUstream_st* stream, const Composite& c, const Ray& ray,
                  const Clear& clear) {
  cudaError_t error = ForEachFree(stream, c, clear);
  if (error == cudaSuccess) {
    error = ForEachWarp(stream, c.num_batches * c.num_rays, ray);
  }
  return Explain(error);
}

}  // namespace

const char* Launch(CUstream_st* stream, const CompositeForward& forward) {
  return Queue(stream, forward.c, ForwardRay{forward}, ClearWeight{forward});
}

const char* Launch(CUstream_st* stream, const CompositeBackward& backward) {
  return Queue(stream, backward.c, BackwardRay{backward},
               ClearGradients{backward});
}

}  // namespace dreamjax
