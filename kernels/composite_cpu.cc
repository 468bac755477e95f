// Volume rendering on a CPU: what the slots of many rays absorb in vector
// registers, then ray by ray.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "composite.h"
#include "cpu.h"

namespace dreamjax {
namespace {

constexpr int64_t kRays = 64;

int64_t PartsPerBatch(const Composite& c) {
  return (c.num_rays + kRays - 1) / kRays;
}

// The rays of a part; in the offsets' order their slots lie side by side.
struct Rays {
  int64_t begin;
  int64_t end;
};

Rays RaysOf(const Composite& c, int64_t part) {
  const int64_t first = part / PartsPerBatch(c) * c.num_rays;
  const int64_t begin = part % PartsPerBatch(c) * kRays;
  return {first + begin, first + std::min(begin + kRays, c.num_rays)};
}

// The slots of some rays, and what of the light at each is absorbed there.
struct Absorption {
  Slots slots;
  float* alpha;  // [slots.end - slots.begin]
};

Slots SlotsOf(const Composite& c, Rays rays) {
  const int64_t batch = rays.begin / c.num_rays, first = batch * c.num_rays;
  const int64_t begin = SlotsOf(c, batch, rays.begin - first).begin;
  const int64_t end = SlotsOf(c, batch, rays.end - 1 - first).end;
  return {begin, std::max(begin, end)};
}

// The slots of one of the rays: among theirs, whatever the offsets say.
DJ_HD Slots SlotsOf(const Composite& c, int64_t ray, const Absorption& all) {
  const Slots slots = SlotsOf(c, ray / c.num_rays, ray % c.num_rays);
  const int64_t begin = Clamp(slots.begin, all.slots.begin, all.slots.end);
  return {begin, Clamp(slots.end, begin, all.slots.end)};
}

DJ_CLONES void AbsorbAll(const Composite& c, const Absorption& all) {
  const int64_t size = all.slots.end - all.slots.begin;
  const float* density = c.density + all.slots.begin;
  const float* width = c.width + all.slots.begin;
  float* __restrict alpha = all.alpha;
  for (int64_t s = 0; s < size; ++s) {
    alpha[s] = Absorbed(density[s] * width[s]);
  }
}

// Composites a ray of kChannels C, or 0 for any number of channels.
template <int kChannels>
DJ_HD void Ray(const CompositeForward& f, int64_t i, const Absorption& all) {
  const Composite& c = f.c;
  const Slots slots = SlotsOf(c, i, all);
  const int64_t channels = kChannels > 0 ? kChannels : c.num_channels;
  float near[kChannels > 0 ? kChannels : 1];
  float* result = f.value_ray + i * channels;
  float* sum = kChannels > 0 ? near : result;
  for (int64_t k = 0; k < channels; ++k) sum[k] = 0.0f;
  float left = 1.0f, total = 0.0f;
  for (int64_t s = slots.begin; s < slots.end; ++s) {
    const float absorbed = all.alpha[s - all.slots.begin];
    const float w = left * absorbed;
    left *= 1.0f - absorbed;
    total += w;
    f.weight[s] = w;
    const float* value = c.value + s * channels;
    for (int64_t k = 0; k < channels; ++k) sum[k] += w * value[k];
  }
  f.opacity[i] = total;
  if (kChannels == 0) return;
  for (int64_t k = 0; k < channels; ++k) result[k] = sum[k];
}

template <int kChannels>
DJ_HD void Ray(const CompositeBackward& b, int64_t i, const Absorption& all) {
  const Composite& c = b.c;
  const Slots slots = SlotsOf(c, i, all);
  const int64_t channels = kChannels > 0 ? kChannels : c.num_channels;
  float near[kChannels > 0 ? kChannels : 1];
  const float* g_sum = b.g_value_ray + i * channels;
  if (kChannels > 0) {
    for (int64_t k = 0; k < channels; ++k) near[k] = g_sum[k];
    g_sum = near;
  }
  // Front to back: weight_i in place of alpha_i, T_{i+1} in that of a result.
  float left = 1.0f;
  for (int64_t s = slots.begin; s < slots.end; ++s) {
    const float absorbed = all.alpha[s - all.slots.begin];
    all.alpha[s - all.slots.begin] = left * absorbed;
    left *= 1.0f - absorbed;
    b.g_density[s] = left;
  }
  // Back to front: the sum over all samples behind.
  float behind = 0.0f;
  for (int64_t s = slots.end; s-- > slots.begin;) {
    const float after = b.g_density[s], w = all.alpha[s - all.slots.begin];
    float score = OwnScore(b, i, s);
    const float* value = c.value + s * channels;
    float* g = b.g_value + s * channels;
    for (int64_t k = 0; k < channels; ++k) score += g_sum[k] * value[k];
    for (int64_t k = 0; k < channels; ++k) g[k] = w * g_sum[k];
    const float g_depth = after * score - behind;
    behind += w * score;
    b.g_density[s] = g_depth * c.width[s];
    if (b.g_width != nullptr) b.g_width[s] = g_depth * c.density[s];
  }
}

template <int kChannels, class Call>
DJ_HD void RunRays(const Call& call, Rays rays, const Absorption& all) {
  const Call copy = call;  // Its pointers may stay in registers.
  for (int64_t i = rays.begin; i < rays.end; ++i) {
    Ray<kChannels>(copy, i, all);
  }
}

template <class Call>
DJ_HD void RunAnyRays(const Call& call, Rays rays, const Absorption& all) {
  // What rendering sums: depth and its square; colours, or normals.
  switch (call.c.num_channels) {
    case 2:
      return RunRays<2>(call, rays, all);
    case 3:
      return RunRays<3>(call, rays, all);
    default:
      return RunRays<0>(call, rays, all);
  }
}

DJ_CLONES void RunAll(const CompositeForward& call, Rays rays,
                      const Absorption& all) {
  RunAnyRays(call, rays, all);
}

DJ_CLONES void RunAll(const CompositeBackward& call, Rays rays,
                      const Absorption& all) {
  RunAnyRays(call, rays, all);
}

}  // namespace

int64_t NumParts(const CompositeForward& call) {
  return call.c.num_batches * PartsPerBatch(call.c);
}

int64_t NumParts(const CompositeBackward& call) {
  return call.c.num_batches * PartsPerBatch(call.c);
}

// Each slot's alpha waits in the result that takes its place.
void RunPart(const CompositeForward& call, int64_t part) {
  const Rays rays = RaysOf(call.c, part);
  const Slots slots = SlotsOf(call.c, rays);
  const Absorption all = {slots, call.weight + slots.begin};
  AbsorbAll(call.c, all);
  RunAll(call, rays, all);
}

// There is no such result here; the slots of a part fit into a core's cache.
void RunPart(const CompositeBackward& call, int64_t part) {
  const Rays rays = RaysOf(call.c, part);
  const Slots slots = SlotsOf(call.c, rays);
  const std::unique_ptr<float[]> alpha(new float[slots.end - slots.begin]);
  const Absorption all = {slots, alpha.get()};
  AbsorbAll(call.c, all);
  RunAll(call, rays, all);
}

}  // namespace dreamjax
