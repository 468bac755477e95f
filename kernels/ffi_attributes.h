// Attributes of handlers that more than one source file reads.
#pragma once

#include <cstdint>
#include <limits>

#include "ffi.h"
#include "hash_grid.h"
#include "mlp.h"

namespace dreamjax {
namespace {

struct GridAttributes {
  ffi::Span<const float> scales;
  ffi::Span<const int32_t> resolutions;
  ffi::Span<const int64_t> offsets;
  ffi::Span<const int64_t> sizes;
  int32_t features;
  bool smoothstep;
};

// Fills a grid, if no point can leave its level nor a level the table.
inline bool MakeGrid(const GridAttributes& a, HashGrid& grid) {
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
  grid.num_entries = 0;
  grid.smoothstep = a.smoothstep;
  for (size_t i = 0; i < n; ++i) {
    const int64_t resolution = a.resolutions[i];
    // Eight entries: so wide are the words that GPUs read pairs of entries by.
    if (resolution < 2 || resolution > 1 << 20 || a.sizes[i] < 1 ||
        a.sizes[i] % 8 != 0 ||
        a.sizes[i] > std::numeric_limits<int32_t>::max() ||
        a.offsets[i] != grid.num_entries) {
      return false;
    }
    grid.num_entries += a.sizes[i];
    grid.level[i] = {a.scales[i], a.resolutions[i],
                     static_cast<int32_t>(a.sizes[i]), a.offsets[i],
                     resolution * resolution * resolution <= a.sizes[i]};
  }
  return true;
}

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

}  // namespace
}  // namespace dreamjax
