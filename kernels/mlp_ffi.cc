// Handlers of the network and its derivatives.

#include <cstdint>

#include "ffi_attributes.h"

namespace dreamjax {
namespace {

struct MlpAttributes {
  ffi::Span<const int32_t> sizes;
};

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

}  // namespace
}  // namespace dreamjax

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    dreamjax::MlpAttributes, StructMember<Span<const int32_t>>("sizes"));

DJ_MLP_TARGETS(DJ_DEFINE_CPU)
DJ_MLP_TARGETS(DJ_DEFINE_CUDA)
