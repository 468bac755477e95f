// Volume rendering on a CPU: what the slots of many rays absorb, then ray by
// ray, four samples at a time.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "composite.h"
#include "composite_vector.h"
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

Slots SlotsOfRays(const Composite& c, Rays rays) {
  const int64_t batch = rays.begin / c.num_rays, first = batch * c.num_rays;
  const int64_t begin = SlotsOf(c, batch, rays.begin - first).begin;
  const int64_t end = SlotsOf(c, batch, rays.end - 1 - first).end;
  return {begin, std::max(begin, end)};
}

// Rays that are one part of the work, and their slots.
struct Part {
  Part(const Composite& c, int64_t part)
      : rays(RaysOf(c, part)), slots(SlotsOfRays(c, rays)) {}

  // The slots of one of the rays: among the part's, whatever the offsets say.
  DJ_HD Slots Own(const Composite& c, int64_t ray) const {
    const Slots own = SlotsOf(c, ray / c.num_rays, ray % c.num_rays);
    const int64_t begin = Clamp(own.begin, slots.begin, slots.end);
    return {begin, Clamp(own.end, begin, slots.end)};
  }

  const Rays rays;
  const Slots slots;
};

// Numbers at the slots of a part.
struct Scratch {
  explicit Scratch(const Part& part)
      : begin(part.slots.begin), numbers(new float[part.slots.end - begin]) {}
  DJ_HD float* At(int64_t slot) const { return &numbers[slot - begin]; }

  const int64_t begin;
  const std::unique_ptr<float[]> numbers;  // not cleared
};

// What of the light at each slot is absorbed there.
DJ_CLONES void AbsorbAll(const Composite& c, const Part& part,
                         const Scratch& scratch) {
  float* __restrict alpha = scratch.numbers.get();
  const float* density = c.density + part.slots.begin;
  const float* width = c.width + part.slots.begin;
  for (int64_t s = 0; s < part.slots.end - part.slots.begin; ++s) {
    alpha[s] = Absorbed(density[s] * width[s]);
  }
}

template <class Channels>
DJ_HD void Ray(const CompositeForward& f, const Part& part, int64_t ray,
               const Scratch& alpha) {
  const Composite& c = f.c;
  const Slots slots = part.Own(c, ray);
  Channels values(c.num_channels, f.value_ray + ray * c.num_channels);
  Four total = {};
  float left = 1.0f;
  ForFours(slots.begin, slots.end, [&](int64_t s, int64_t count) DJ_INLINED {
    const Passage p = Pass(Read(alpha.At(s), count), left);
    total += p.weight;
    Write(p.weight, count, f.weight + s);
    values.Add(p.weight, c.value + s * c.num_channels, count);
  });
  f.opacity[ray] = (total[0] + total[1]) + (total[2] + total[3]);
  values.Finish();
}

template <class Channels>
DJ_HD void Ray(const CompositeBackward& b, const Part& part, int64_t ray,
               const Scratch& alpha, const Scratch& passed) {
  const Composite& c = b.c;
  const Slots slots = part.Own(c, ray);
  const typename Channels::Gradients values(
      c.num_channels, b.g_value_ray + ray * c.num_channels);
  // Front to back: weight_i score_i in place of alpha_i, and T_{i+1} score_i.
  float left = 1.0f;
  ForFours(slots.begin, slots.end, [&](int64_t s, int64_t count) DJ_INLINED {
    const Passage p = Pass(Read(alpha.At(s), count), left);
    Four score = values.Score(c.value + s * c.num_channels, count) +
                 b.g_opacity[ray];
    if (b.g_weight != nullptr) score += Read(b.g_weight + s, count);
    values.Store(p.weight, count, b.g_value + s * c.num_channels);
    Write(p.weight * score, count, alpha.At(s));
    Write(p.after * score, count, passed.At(s));
  });
  // Back to front: the sum over all samples behind.
  float behind = 0.0f;
  ForFoursBackwards(slots.begin, slots.end,
                    [&](int64_t s, int64_t count) DJ_INLINED {
    const Four g_depth = Read(passed.At(s), count) -
                         SumBehind(Read(alpha.At(s), count), behind);
    Write(g_depth * Read(c.width + s, count), count, b.g_density + s);
    if (b.g_width == nullptr) return;
    Write(g_depth * Read(c.density + s, count), count, b.g_width + s);
  });
}

template <class Channels, class Call, class... Arrays>
DJ_HD void RunRays(const Call& call, const Part& part,
                   const Arrays&... arrays) {
  const Call copy = call;  // Its pointers may stay in registers.
  for (int64_t ray = part.rays.begin; ray < part.rays.end; ++ray) {
    Ray<Channels>(copy, part, ray, arrays...);
  }
}

template <class Call, class... Arrays>
DJ_HD void RunAnyRays(const Call& call, const Part& part,
                      const Arrays&... arrays) {
  // What rendering sums: depth and its square; colours, or normals.
  switch (call.c.num_channels) {
    case 2:
      return RunRays<AnyChannels<2>>(call, part, arrays...);
    case 3:
      return RunRays<ThreeChannels>(call, part, arrays...);
    default:
      return RunRays<AnyChannels<0>>(call, part, arrays...);
  }
}

DJ_CLONES void RunAll(const CompositeForward& call, const Part& part,
                      const Scratch& alpha) {
  RunAnyRays(call, part, alpha);
}

DJ_CLONES void RunAll(const CompositeBackward& call, const Part& part,
                      const Scratch& alpha, const Scratch& passed) {
  RunAnyRays(call, part, alpha, passed);
}

}  // namespace

int64_t NumParts(const CompositeForward& call) {
  return call.c.num_batches * PartsPerBatch(call.c);
}

int64_t NumParts(const CompositeBackward& call) {
  return call.c.num_batches * PartsPerBatch(call.c);
}

void RunPart(const CompositeForward& call, int64_t index) {
  const Part part(call.c, index);
  const Scratch alpha(part);
  AbsorbAll(call.c, part, alpha);
  RunAll(call, part, alpha);
}

void RunPart(const CompositeBackward& call, int64_t index) {
  const Part part(call.c, index);
  const Scratch alpha(part), passed(part);
  AbsorbAll(call.c, part, alpha);
  RunAll(call, part, alpha, passed);
}

}  // namespace dreamjax
