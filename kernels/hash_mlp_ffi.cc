// Handlers of encoding and network in one pass, on a CPU.

#include <cstdint>

#include "ffi_attributes.h"

namespace dreamjax {
namespace {

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
                 const F32& weight, const F32& position, const I32& count,
                 const F32* cotangent, const F32* slope_cotangent,
                 HashMlp& h) {
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
  h.count = count.typed_data();
  h.cotangent = cotangent == nullptr ? nullptr : cotangent->typed_data();
  h.slope_cotangent =
      slope_cotangent == nullptr ? nullptr : slope_cotangent->typed_data();
  const int64_t points = m.num_batches * m.num_points;
  return h.grid.num_features % 4 == 0 &&
         h.grid.num_levels * h.grid.num_features == Inputs(m) &&
         Has(position, 3 * points) && Has(count, m.num_batches) &&
         Has(weight, m.num_batches * NumWeights(m)) &&
         Has(table, m.num_batches * h.grid.num_entries *
                        h.grid.num_features) &&
         (cotangent == nullptr || Has(*cotangent, points * Outputs(m))) &&
         (slope_cotangent == nullptr || Has(*slope_cotangent, 3 * points));
}

ffi::Error RunHashMlp(ffi::ThreadPool& pool, const HashMlpAttributes& a,
                      const F32& table, const F32& weight, const F32& position,
                      const I32& count, F32Out& output, F32Out* slope) {
  HashMlpValue h;
  if (!MakeHashMlp(a, table, weight, position, count, nullptr, nullptr, h)) {
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
                       const F32& position, const I32& count,
                       const F32& cotangent, const F32* slope_cotangent,
                       F32Out& gradient, F32Out& partial, F32Out& pull) {
  HashMlpPull h;
  if (!MakeHashMlp(a, table, weight, position, count, &cotangent,
                   slope_cotangent, h)) {
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
                      F32 position, I32 count, F32Out output) {
  return RunHashMlp(exec, a, table, weight, position, count, output, nullptr);
}

template <class Exec>
ffi::Error HashMlpRunSlope(Exec exec, HashMlpAttributes a, F32 table,
                           F32 weight, F32 position, I32 count, F32Out output,
                           F32Out slope) {
  return RunHashMlp(exec, a, table, weight, position, count, output, &slope);
}

template <class Exec>
ffi::Error HashMlpPullBack(Exec exec, HashMlpAttributes a, F32 table,
                           F32 weight, F32 position, I32 count, F32 cotangent,
                           F32Out gradient, F32Out partial, F32Out pull) {
  return PullHashMlp(exec, a, table, weight, position, count, cotangent,
                     nullptr, gradient, partial, pull);
}

template <class Exec>
ffi::Error HashMlpPullSlope(Exec exec, HashMlpAttributes a, F32 table,
                            F32 weight, F32 position, I32 count, F32 cotangent,
                            F32 slope_cotangent, F32Out gradient,
                            F32Out partial, F32Out pull) {
  return PullHashMlp(exec, a, table, weight, position, count, cotangent,
                     &slope_cotangent, gradient, partial, pull);
}

}  // namespace
}  // namespace dreamjax

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    dreamjax::HashMlpAttributes,
    StructMember<Span<const float>>("scales"),
    StructMember<Span<const int32_t>>("resolutions"),
    StructMember<Span<const int64_t>>("offsets"),
    StructMember<Span<const int64_t>>("level_sizes"),
    StructMember<int32_t>("features"), StructMember<bool>("smoothstep"),
    StructMember<Span<const int32_t>>("sizes"));

DJ_CPU_TARGETS(DJ_DEFINE_CPU)
