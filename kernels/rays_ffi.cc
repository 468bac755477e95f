// Handlers of marching and compositing.

#include <cstdint>

#include "ffi.h"

namespace dreamjax {
namespace {

struct MarchAttributes {
  float step;
  float bound;
  int32_t candidates;
};

template <class Exec>
ffi::Error MarchRays(Exec exec, MarchAttributes a, F32 origin, F32 direction,
                     F32 jitter, U8 occupancy, F32Out distance, F32Out width,
                     I32Out ray, I32Out offset, I32Out overflow) {
  March m;
  m.num_batches = Batches(jitter, 1);
  m.num_rays = Size(jitter, 0);
  m.num_slots = Size(*distance, 0);
  const int64_t rays = m.num_batches * m.num_rays;
  const int64_t slots = m.num_batches * m.num_slots;
  const int64_t resolution = Size(occupancy, 1);
  const int64_t bytes = Size(occupancy, 0);
  if (resolution < 1 || resolution > 1024 || bytes != (resolution + 7) / 8 ||
      !Has(origin, 3 * rays) ||
      !Has(direction, 3 * rays) ||
      !Has(occupancy, m.num_batches * resolution * resolution * bytes) ||
      !Has(*distance, slots) ||
      !Has(*width, slots) || !Has(*ray, slots) ||
      !Has(*offset, rays + m.num_batches) || !Has(*overflow, m.num_batches)) {
    return Misfit();
  }
  m.resolution = static_cast<int32_t>(resolution);
  m.num_candidates = a.candidates;
  m.step = a.step;
  m.bound = a.bound;
  m.origin = origin.typed_data();
  m.direction = direction.typed_data();
  m.jitter = jitter.typed_data();
  m.occupancy = occupancy.typed_data();
  m.distance = distance->typed_data();
  m.width = width->typed_data();
  m.ray = ray->typed_data();
  m.offset = offset->typed_data();
  m.overflow = overflow->typed_data();
  return Execute(exec, m);
}

bool MakeComposite(const F32& density, const F32& value, const F32& width,
                   const I32& offset, Composite& c) {
  c = {Batches(density, 1), Size(offset, 0) - 1,    Size(density, 0),
       Size(value, 0),      density.typed_data(),   value.typed_data(),
       width.typed_data(),  offset.typed_data()};
  const int64_t slots = c.num_batches * c.num_slots;
  return c.num_rays >= 0 && Has(value, slots * c.num_channels) &&
         Has(width, slots) && Has(offset, c.num_batches * (c.num_rays + 1));
}

template <class Exec>
ffi::Error CompositeRays(Exec exec, F32 density, F32 value, F32 width,
                         I32 offset, F32Out value_ray, F32Out opacity,
                         F32Out weight) {
  CompositeForward forward;
  Composite& c = forward.c;
  if (!MakeComposite(density, value, width, offset, c)) return Misfit();
  const int64_t rays = c.num_batches * c.num_rays;
  if (!Has(*value_ray, rays * c.num_channels) || !Has(*opacity, rays) ||
      !Has(*weight, c.num_batches * c.num_slots)) {
    return Misfit();
  }
  forward.value_ray = value_ray->typed_data();
  forward.opacity = opacity->typed_data();
  forward.weight = weight->typed_data();
  return Execute(exec, forward);
}

template <class Exec>
ffi::Error CompositeRaysGradient(Exec exec, F32 density, F32 value, F32 width,
                                 I32 offset, F32 g_value_ray, F32 g_opacity,
                                 F32 g_weight, F32Out g_density,
                                 F32Out g_value, F32Out g_width) {
  CompositeBackward backward;
  Composite& c = backward.c;
  if (!MakeComposite(density, value, width, offset, c)) return Misfit();
  const int64_t rays = c.num_batches * c.num_rays;
  const int64_t slots = c.num_batches * c.num_slots;
  if (!Has(g_value_ray, rays * c.num_channels) || !Has(g_opacity, rays) ||
      (!Has(g_weight, slots) && !Has(g_weight, 0)) ||
      !Has(*g_density, slots) ||
      !Has(*g_value, slots * c.num_channels) ||
      (!Has(*g_width, slots) && !Has(*g_width, 0))) {
    return Misfit();
  }
  backward.g_value_ray = g_value_ray.typed_data();
  backward.g_opacity = g_opacity.typed_data();
  backward.g_weight = Has(g_weight, slots) ? g_weight.typed_data() : nullptr;
  backward.g_density = g_density->typed_data();
  backward.g_value = g_value->typed_data();
  backward.g_width = Has(*g_width, slots) ? g_width->typed_data() : nullptr;
  return Execute(exec, backward);
}

}  // namespace
}  // namespace dreamjax

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(dreamjax::MarchAttributes,
                                      StructMember<float>("step"),
                                      StructMember<float>("bound"),
                                      StructMember<int32_t>("candidates"));

DJ_RAY_TARGETS(DJ_DEFINE_CPU)
DJ_RAY_TARGETS(DJ_DEFINE_CUDA)
