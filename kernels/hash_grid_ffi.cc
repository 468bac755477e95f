// Handlers of the hash encoding and its derivatives.

#include <cstdint>
#include <type_traits>

#include "ffi_attributes.h"

namespace dreamjax {
namespace {

// Runs a HashGather, HashScatter or HashSlope; absent arguments are null.
template <class Call, class Exec>
ffi::Error RunHash(Exec& exec, const GridAttributes& attributes,
                   const F32* table, const F32& position, const F32* cotangent,
                   const F32* direction, F32Out& result,
                   const F32* plain = nullptr) {
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
      (direction != nullptr && !Has(*direction, 3 * num_points)) ||
      (plain != nullptr && !Has(*plain, features))) {
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
  if constexpr (std::is_same_v<Call, HashScatter>) call.plain = data(plain);
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

// Of features and of the slope at once.
template <class Exec>
ffi::Error HashTableGradients(Exec exec, GridAttributes a, F32 position,
                              F32 cotangent, F32 slope_cotangent,
                              F32 direction, F32Out table) {
  return RunHash<HashScatter>(exec, a, nullptr, position, &slope_cotangent,
                              &direction, table, &cotangent);
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
ffi::Error HashSecondTable(Exec exec, GridAttributes a, F32 table,
                           F32 position, F32 cotangent,
                           F32 direction, F32Out result) {
  return Second<HashScatter>(exec, a, table, position, cotangent, direction,
                             result);
}

template <class Exec>
ffi::Error HashSecondPosition(Exec exec, GridAttributes a, F32 table,
                              F32 position, F32 cotangent,
                              F32 direction, F32Out result) {
  return Second<HashSlope>(exec, a, table, position, cotangent, direction,
                             result);
}

template <class Exec>
ffi::Error HashSecondCotangent(Exec exec, GridAttributes a, F32 table,
                               F32 position, F32 cotangent,
                               F32 direction, F32Out result) {
  return Second<HashGather>(exec, a, table, position, cotangent, direction,
                             result);
}

}  // namespace
}  // namespace dreamjax

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    dreamjax::GridAttributes,
    StructMember<Span<const float>>("scales"),
    StructMember<Span<const int32_t>>("resolutions"),
    StructMember<Span<const int64_t>>("offsets"),
    StructMember<Span<const int64_t>>("sizes"),
    StructMember<int32_t>("features"), StructMember<bool>("smoothstep"));

DJ_HASH_TARGETS(DJ_DEFINE_CPU)
DJ_HASH_TARGETS(DJ_DEFINE_CUDA)
