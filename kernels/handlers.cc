// XLA FFI handlers: one body per operation, bound for CPU and for CUDA.
//
// Python checks arguments and explains; the checks here only keep a wrong call
// from reading beyond its buffers.

#include "handlers.h"

#include <cstdint>
#include <string>
#include <type_traits>

#include "cpu.h"
#include "xla/ffi/api/ffi.h"
#include "launch.h"

namespace dreamjax {
namespace {

namespace ffi = xla::ffi;

using F32 = ffi::Buffer<ffi::F32>;
using I32 = ffi::Buffer<ffi::S32>;
using U8 = ffi::Buffer<ffi::U8>;
using F32Out = ffi::ResultBuffer<ffi::F32>;
using I32Out = ffi::ResultBuffer<ffi::S32>;
// Runs a call, and is the only thing that differs between the backends.
template <class Call>
ffi::Error Execute(ffi::ThreadPool& pool, const Call& call) {
  Run(pool, call);
  return ffi::Error::Success();
}

#ifdef DREAMJAX_CUDA
template <class Call>
ffi::Error Execute(CUstream_st* stream, const Call& call) {
  const char* problem = Launch(stream, call);
  if (problem == nullptr) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("dreamjax: CUDA says: ") + problem +
                              "; DREAMJAX_KERNELS=off does without kernels.");
}
#endif

ffi::Error Misfit() {
  return ffi::Error::InvalidArgument(
      "dreamjax: the buffers of a kernel do not fit each other.");
}

template <class Buffer>
bool Has(const Buffer& buffer, int64_t count) {
  return static_cast<int64_t>(buffer.element_count()) == count;
}

// The size of axis `from_last` counted from the last one, 0 if there is none.
template <class Buffer>
int64_t Size(const Buffer& buffer, size_t from_last) {
  const auto sizes = buffer.dimensions();
  return from_last < sizes.size() ? sizes[sizes.size() - 1 - from_last] : 0;
}

// The product of all axes but the last `rank`.
template <class Buffer>
int64_t Batches(const Buffer& buffer, size_t rank) {
  const auto sizes = buffer.dimensions();
  int64_t product = 1;
  for (size_t i = 0; i + rank < sizes.size(); ++i) product *= sizes[i];
  return product;
}

struct GridAttributes {
  ffi::Span<const float> scales;
  ffi::Span<const int32_t> resolutions;
  ffi::Span<const int64_t> offsets;
  ffi::Span<const int64_t> sizes;
  int32_t features;
  bool smoothstep;
};

template <class Attributes>
bool MakeGrid(const Attributes& a, HashGrid& grid) {
  const size_t n = a.scales.size();
  if (n < 1 || n > kMaxLevels || a.resolutions.size() != n ||
      a.offsets.size() != n || a.sizes.size() != n) {
    return false;
  }
  if (a.features < 1 || a.features > 8 || (a.features & (a.features - 1))) {
    return false;
  }
  grid.num_levels = static_cast<int>(n);
  grid.num_features = a.features;
  grid.num_entries = a.offsets[n - 1] + a.sizes[n - 1];
  grid.smoothstep = a.smoothstep;
  for (size_t i = 0; i < n; ++i) {
    const int64_t resolution = a.resolutions[i];
    grid.level[i] = {a.scales[i], a.resolutions[i],
                     static_cast<int32_t>(a.sizes[i]), a.offsets[i],
                     resolution * resolution * resolution <= a.sizes[i]};
  }
  return true;
}

// Runs a HashGather, HashScatter or HashSlope; absent arguments are null.
template <class Call, class Exec>
ffi::Error RunHash(Exec& exec, const GridAttributes& attributes,
                   const F32* table, const F32& position, const F32* cotangent,
                   const F32* direction, F32Out& result) {
  Call call;
  if (!MakeGrid(attributes, call.grid)) return Misfit();
  call.num_batches = Batches(position, 2);
  call.num_points = Size(position, 1);
  const int64_t num_points = call.num_batches * call.num_points;
  const int64_t entries =
      call.num_batches * call.grid.num_entries * call.grid.num_features;
  const int64_t features =
      num_points * call.grid.num_levels * call.grid.num_features;
  const int64_t results =
      std::is_same_v<Call, HashGather>
          ? features
          : (std::is_same_v<Call, HashScatter> ? entries : 3 * num_points);
  if (!Has(position, 3 * num_points) || !Has(*result, results) ||
      (table != nullptr && !Has(*table, entries)) ||
      (cotangent != nullptr && !Has(*cotangent, features)) ||
      (direction != nullptr && !Has(*direction, 3 * num_points))) {
    return Misfit();
  }
  const auto data = [](const F32* buffer) {
    return buffer == nullptr ? nullptr : buffer->typed_data();
  };
  call.table = data(table);
  call.position = position.typed_data();
  call.cotangent = data(cotangent);
  call.direction = data(direction);
  call.result = result->typed_data();
  return Execute(exec, call);
}

// The handlers: context, attributes, arguments, result.

template <class Exec>
ffi::Error HashEncode(Exec exec, GridAttributes a, F32 table, F32 position,
                      F32Out feature) {
  return RunHash<HashGather>(exec, a, &table, position, nullptr, nullptr,
                             feature);
}

template <class Exec>
ffi::Error HashTableGradient(Exec exec, GridAttributes a, F32 position,
                             F32 cotangent, F32Out table) {
  return RunHash<HashScatter>(exec, a, nullptr, position, &cotangent, nullptr,
                              table);
}

template <class Exec>
ffi::Error HashPositionGradient(Exec exec, GridAttributes a, F32 table,
                                F32 position, F32 cotangent,
                                F32Out gradient) {
  return RunHash<HashSlope>(exec, a, &table, position, &cotangent, nullptr,
                            gradient);
}

template <class Call, class Exec>
ffi::Error Second(Exec& exec, const GridAttributes& a, const F32& table,
                  const F32& position, const F32& cotangent,
                  const F32& direction, F32Out& result) {
  return RunHash<Call>(exec, a, &table, position, &cotangent, &direction,
                       result);
}

template <class Exec>
ffi::Error HashSecondTable(Exec exec, GridAttributes a, F32 table, F32 position,
                           F32 cotangent, F32 direction, F32Out result) {
  return Second<HashScatter>(exec, a, table, position, cotangent, direction, result);
}

template <class Exec>
ffi::Error HashSecondPosition(Exec exec, GridAttributes a, F32 table, F32 position,
                           F32 cotangent, F32 direction, F32Out result) {
  return Second<HashSlope>(exec, a, table, position, cotangent, direction, result);
}

template <class Exec>
ffi::Error HashSecondCotangent(Exec exec, GridAttributes a, F32 table, F32 position,
                           F32 cotangent, F32 direction, F32Out result) {
  return Second<HashGather>(exec, a, table, position, cotangent, direction, result);
}

struct MlpAttributes {
  ffi::Span<const int32_t> sizes;
};

// The sizes of a network.
template <class Attributes>
bool MakeSizes(const Attributes& a, Mlp& m) {
  const size_t n = a.sizes.size();
  if (n < 2 || n > kMaxMlpMatrices + 1) return false;
  m.num_matrices = static_cast<int>(n - 1);
  for (size_t i = 0; i < n; ++i) {
    if (a.sizes[i] < 1 || a.sizes[i] > kMaxMlpWidth) return false;
    m.size[i] = a.sizes[i];
  }
  return true;
}

// Sizes and buffers of a call; absent ones are null.
bool MakeMlp(const MlpAttributes& a, const F32& weight, const F32& input,
             const F32* cotangent, const F32* direction, F32Out& result,
             F32Out* partial, Mlp& m) {
  if (!MakeSizes(a, m)) return false;
  m.num_batches = Batches(input, 2);
  m.num_points = Size(input, 1);
  m.num_parts = partial == nullptr ? 1 : Size(**partial, 1);
  const int64_t points = m.num_batches * m.num_points;
  const int64_t weights = m.num_batches * NumWeights(m);
  const int64_t inputs = points * Inputs(m), outputs = points * Outputs(m);
  const bool fits =
      m.num_parts >= 1 && Has(weight, weights) && Has(input, inputs) &&
      (cotangent == nullptr || Has(*cotangent, outputs)) &&
      (direction == nullptr || Has(*direction, inputs)) &&
      Has(*result, (cotangent == nullptr) == (direction == nullptr) ? outputs
                                                                    : inputs) &&
      (partial == nullptr || Has(**partial, weights * m.num_parts));
  m.weight = weight.typed_data();
  m.input = input.typed_data();
  m.cotangent = cotangent == nullptr ? nullptr : cotangent->typed_data();
  m.direction = direction == nullptr ? nullptr : direction->typed_data();
  m.result = result->typed_data();
  m.partial = partial == nullptr ? nullptr : (*partial)->typed_data();
  return fits;
}

template <class Exec>
ffi::Error MlpRun(Exec exec, MlpAttributes a, F32 weight, F32 input,
                  F32Out output) {
  MlpValue m;
  if (!MakeMlp(a, weight, input, nullptr, nullptr, output, nullptr, m)) {
    return Misfit();
  }
  return Execute(exec, m);
}

template <class Exec>
ffi::Error MlpPullInput(Exec exec, MlpAttributes a, F32 weight, F32 input,
                        F32 cotangent, F32Out gradient) {
  MlpInputGradient m;
  if (!MakeMlp(a, weight, input, &cotangent, nullptr, gradient, nullptr, m)) {
    return Misfit();
  }
  return Execute(exec, m);
}

template <class Exec>
ffi::Error MlpPull(Exec exec, MlpAttributes a, F32 weight, F32 input,
                   F32 cotangent, F32Out gradient, F32Out partial) {
  MlpGradient m;
  if (!MakeMlp(a, weight, input, &cotangent, nullptr, gradient, &partial, m)) {
    return Misfit();
  }
  return Execute(exec, m);
}

template <class Exec>
ffi::Error MlpPullTwice(Exec exec, MlpAttributes a, F32 weight, F32 input,
                        F32 cotangent, F32 direction, F32Out gradient,
                        F32Out partial) {
  MlpSecond m;
  if (!MakeMlp(a, weight, input, &cotangent, &direction, gradient, &partial,
               m)) {
    return Misfit();
  }
  return Execute(exec, m);
}

struct HashMlpAttributes {
  ffi::Span<const float> scales;
  ffi::Span<const int32_t> resolutions;
  ffi::Span<const int64_t> offsets;
  ffi::Span<const int64_t> level_sizes;
  int32_t features;
  bool smoothstep;
  ffi::Span<const int32_t> sizes;
};

// Sizes and buffers of a call; an absent one is null.
bool MakeHashMlp(const HashMlpAttributes& a, const F32& table,
                 const F32& weight, const F32& position, const F32* cotangent,
                 const F32* slope_cotangent, HashMlp& h) {
  const GridAttributes grid = {a.scales,      a.resolutions, a.offsets,
                               a.level_sizes, a.features,    a.smoothstep};
  Mlp& m = h.mlp;
  if (!MakeGrid(grid, h.grid) || !MakeSizes(a, m)) return false;
  m.num_batches = Batches(position, 2);
  m.num_points = Size(position, 1);
  m.num_parts = 1;
  m.weight = weight.typed_data();
  m.partial = nullptr;
  h.table = table.typed_data();
  h.position = position.typed_data();
  h.cotangent = cotangent == nullptr ? nullptr : cotangent->typed_data();
  h.slope_cotangent =
      slope_cotangent == nullptr ? nullptr : slope_cotangent->typed_data();
  const int64_t points = m.num_batches * m.num_points;
  return h.grid.num_features % 4 == 0 &&
         h.grid.num_levels * h.grid.num_features == Inputs(m) &&
         Has(position, 3 * points) &&
         Has(weight, m.num_batches * NumWeights(m)) &&
         Has(table, m.num_batches * h.grid.num_entries *
                        h.grid.num_features) &&
         (cotangent == nullptr || Has(*cotangent, points * Outputs(m))) &&
         (slope_cotangent == nullptr || Has(*slope_cotangent, 3 * points));
}

ffi::Error RunHashMlp(ffi::ThreadPool& pool, const HashMlpAttributes& a,
                      const F32& table, const F32& weight, const F32& position,
                      F32Out& output, F32Out* slope) {
  HashMlpValue h;
  if (!MakeHashMlp(a, table, weight, position, nullptr, nullptr, h)) {
    return Misfit();
  }
  const int64_t points = h.mlp.num_batches * h.mlp.num_points;
  if (!Has(*output, points * Outputs(h.mlp)) ||
      (slope != nullptr && !Has(**slope, 3 * points))) {
    return Misfit();
  }
  h.output = output->typed_data();
  h.slope = slope == nullptr ? nullptr : (*slope)->typed_data();
  return Execute(pool, h);
}

ffi::Error PullHashMlp(ffi::ThreadPool& pool, const HashMlpAttributes& a,
                       const F32& table, const F32& weight,
                       const F32& position, const F32& cotangent,
                       const F32* slope_cotangent, F32Out& gradient,
                       F32Out& partial, F32Out& pull) {
  HashMlpPull h;
  if (!MakeHashMlp(a, table, weight, position, &cotangent, slope_cotangent,
                   h)) {
    return Misfit();
  }
  Mlp& m = h.mlp;
  m.num_parts = Size(*partial, 1);
  const int64_t pulls = slope_cotangent == nullptr ? 1 : 2;
  if (m.num_parts < 1 ||
      !Has(*partial, m.num_batches * m.num_parts * NumWeights(m)) ||
      !Has(*gradient, m.num_batches * h.grid.num_entries *
                          h.grid.num_features) ||
      !Has(*pull, pulls * m.num_batches * m.num_points * Inputs(m))) {
    return Misfit();
  }
  m.partial = partial->typed_data();
  h.pull = pull->typed_data();
  HashMlpScatter scatter;
  static_cast<HashMlp&>(scatter) = h;
  scatter.pull = h.pull;
  scatter.table_gradient = gradient->typed_data();
  Run(pool, h);
  return Execute(pool, scatter);
}

template <class Exec>
ffi::Error HashMlpRun(Exec exec, HashMlpAttributes a, F32 table, F32 weight,
                      F32 position, F32Out output) {
  return RunHashMlp(exec, a, table, weight, position, output, nullptr);
}

template <class Exec>
ffi::Error HashMlpRunSlope(Exec exec, HashMlpAttributes a, F32 table,
                           F32 weight, F32 position, F32Out output,
                           F32Out slope) {
  return RunHashMlp(exec, a, table, weight, position, output, &slope);
}

template <class Exec>
ffi::Error HashMlpPullBack(Exec exec, HashMlpAttributes a, F32 table,
                           F32 weight, F32 position, F32 cotangent,
                           F32Out gradient, F32Out partial, F32Out pull) {
  return PullHashMlp(exec, a, table, weight, position, cotangent, nullptr,
                     gradient, partial, pull);
}

template <class Exec>
ffi::Error HashMlpPullSlope(Exec exec, HashMlpAttributes a, F32 table,
                            F32 weight, F32 position, F32 cotangent,
                            F32 slope_cotangent, F32Out gradient,
                            F32Out partial, F32Out pull) {
  return PullHashMlp(exec, a, table, weight, position, cotangent,
                     &slope_cotangent, gradient, partial, pull);
}

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
  const int64_t resolution = Size(occupancy, 0);
  if (resolution < 1 || resolution > 1024 || !Has(origin, 3 * rays) || !Has(direction, 3 * rays) ||
      !Has(occupancy,
           m.num_batches * resolution * resolution * resolution) || !Has(*distance, slots) ||
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
      !Has(g_weight, slots) || !Has(*g_density, slots) ||
      !Has(*g_value, slots * c.num_channels) || !Has(*g_width, slots)) {
    return Misfit();
  }
  backward.g_value_ray = g_value_ray.typed_data();
  backward.g_opacity = g_opacity.typed_data();
  backward.g_weight = g_weight.typed_data();
  backward.g_density = g_density->typed_data();
  backward.g_value = g_value->typed_data();
  backward.g_width = g_width->typed_data();
  return Execute(exec, backward);
}

}  // namespace
}  // namespace dreamjax

// The rest of each binding is read off the handler's signature.
XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    dreamjax::GridAttributes,
    StructMember<Span<const float>>("scales"),
    StructMember<Span<const int32_t>>("resolutions"),
    StructMember<Span<const int64_t>>("offsets"),
    StructMember<Span<const int64_t>>("sizes"),
    StructMember<int32_t>("features"), StructMember<bool>("smoothstep"));

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    dreamjax::MlpAttributes, StructMember<Span<const int32_t>>("sizes"));

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    dreamjax::HashMlpAttributes,
    StructMember<Span<const float>>("scales"),
    StructMember<Span<const int32_t>>("resolutions"),
    StructMember<Span<const int64_t>>("offsets"),
    StructMember<Span<const int64_t>>("level_sizes"),
    StructMember<int32_t>("features"), StructMember<bool>("smoothstep"),
    StructMember<Span<const int32_t>>("sizes"));

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(dreamjax::MarchAttributes,
                                      StructMember<float>("step"),
                                      StructMember<float>("bound"),
                                      StructMember<int32_t>("candidates"));

namespace xla::ffi {
template <>
struct CtxBinding<ThreadPool> {
  using Ctx = ThreadPool;
};
template <>
struct CtxBinding<CUstream_st*> {
  using Ctx = PlatformStream<CUstream_st*>;
};
}  // namespace xla::ffi

#define DJ_DEFINE(symbol, implementation, traits)                          \
  extern "C" XLA_FFI_Error* symbol(XLA_FFI_CallFrame* frame) {             \
    static auto* handler =                                                 \
        xla::ffi::Ffi::BindTo(&dreamjax::implementation, traits).release(); \
    return handler->Call(frame);                                           \
  }

#define DJ_DEFINE_CPU(name, target) \
  DJ_DEFINE(Dreamjax##name##Cpu, name<xla::ffi::ThreadPool>, {})
DJ_TARGETS(DJ_DEFINE_CPU)
DJ_CPU_TARGETS(DJ_DEFINE_CPU)

#ifdef DREAMJAX_CUDA
// Always the same launches for the same shapes: they can be recorded.
#define DJ_DEFINE_CUDA(name, target)               \
  DJ_DEFINE(Dreamjax##name##Cuda, name<CUstream_st*>, \
            {xla::ffi::Traits::kCmdBufferCompatible})
DJ_TARGETS(DJ_DEFINE_CUDA)
#endif
