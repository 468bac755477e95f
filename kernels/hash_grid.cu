// Hash encoding on a GPU: one thread per point and level, levels outermost, so
// that all threads of a warp read one level. Kernels launch for fixed shapes.

#include <cstdint>

#include "hash_grid.h"
#include "launch.h"

namespace dreamjax {
namespace {

// A point on a level, and where its numbers are.
struct Place {
  __device__ Place(const HashGridCall& call, int64_t row, int l)
      : level(call.grid.level[l]) {
    const int64_t batch = row / call.num_points;
    const int64_t columns =
        int64_t{call.grid.num_levels} * call.grid.num_features;
    feature = row * columns + int64_t{l} * call.grid.num_features;
    entry = (batch * call.grid.num_entries + level.offset) *
            call.grid.num_features;
    const float* p = call.position + 3 * row;
    cell = level.dense ? Locate<true>(level, p[0], p[1], p[2])
                       : Locate<false>(level, p[0], p[1], p[2]);
    for (int a = 0; a < 3; ++a) {
      axis[a] =
          MakeAxis(cell.fraction[a], level.scale, call.grid.smoothstep);
    }
  }

  // The weight of corner k, or its derivative along the row's direction.
  __device__ float WeightOf(const HashGridCall& call, int64_t row,
                            int k) const {
    if (call.direction == nullptr) {
      return Weight(axis[0], axis[1], axis[2], k);
    }
    return WeightAlong(axis[0], axis[1], axis[2], k,
                       call.direction + 3 * row);
  }

  const Level& level;
  int64_t feature;  // in [B, N, L F]
  int64_t entry;    // in [B, T, F], of the level's first entry
  Cell cell;
  Axis axis[3];
};

// F consecutive floats, aligned so that they are read as few words.
template <int F>
struct alignas(F < 4 ? 4 * F : 16) Vector {
  float at[F];
};

template <int F>
__device__ Vector<F> Read(const float* from) {
  return *reinterpret_cast<const Vector<F>*>(from);
}

// From sm_90 on, one reduction adds up to four floats.
template <int F>
__device__ void Add(float* to, const Vector<F>& v) {
#if __CUDA_ARCH__ >= 900
  if constexpr (F == 1) {
    atomicAdd(to, v.at[0]);
  } else if constexpr (F == 2) {
    atomicAdd(reinterpret_cast<float2*>(to), make_float2(v.at[0], v.at[1]));
  } else {
    for (int i = 0; i < F; i += 4) {
      atomicAdd(reinterpret_cast<float4*>(to + i),
                make_float4(v.at[i], v.at[i + 1], v.at[i + 2], v.at[i + 3]));
    }
  }
#else
  for (int i = 0; i < F; ++i) atomicAdd(to + i, v.at[i]);
#endif
}

template <int F>
struct GatherPoint {
  HashGridCall call;
  __device__ void operator()(int64_t i) const {
    const int64_t rows = call.num_batches * call.num_points;
    const int64_t row = i % rows;
    const Place place(call, row, static_cast<int>(i / rows));
    Vector<F> sum = {};
DJ_UNROLL(8)
    for (int k = 0; k < 8; ++k) {
      const Vector<F> entry =
          Read<F>(call.table + place.entry + int64_t{place.cell.index[k]} * F);
      const float weight = place.WeightOf(call, row, k);
      for (int f = 0; f < F; ++f) sum.at[f] += weight * entry.at[f];
    }
    for (int f = 0; f < F; ++f) call.result[place.feature + f] = sum.at[f];
  }
};

// Adds in whatever order threads arrive: the last bits differ between runs.
template <int F>
struct ScatterPoint {
  HashGridCall call;
  __device__ void operator()(int64_t i) const {
    const int64_t rows = call.num_batches * call.num_points;
    const int64_t row = i % rows;
    const Place place(call, row, static_cast<int>(i / rows));
    const Vector<F> g = Read<F>(call.cotangent + place.feature);
DJ_UNROLL(8)
    for (int k = 0; k < 8; ++k) {
      const float weight = place.WeightOf(call, row, k);
      Vector<F> part;
      for (int f = 0; f < F; ++f) part.at[f] = weight * g.at[f];
      Add<F>(call.result + place.entry + int64_t{place.cell.index[k]} * F,
             part);
    }
  }
};

// One thread per point, which sums over the levels.
template <int F>
struct SlopePoint {
  HashGridCall call;
  __device__ void operator()(int64_t row) const {
    float sum[3] = {0.0f, 0.0f, 0.0f};
    for (int l = 0; l < call.grid.num_levels; ++l) {
      const Place place(call, row, l);
      const Vector<F> g = Read<F>(call.cotangent + place.feature);
      float s[8], slope[3];
DJ_UNROLL(8)
      for (int k = 0; k < 8; ++k) {
        const Vector<F> entry = Read<F>(call.table + place.entry +
                                        int64_t{place.cell.index[k]} * F);
        s[k] = 0.0f;
        for (int f = 0; f < F; ++f) s[k] += g.at[f] * entry.at[f];
      }
      const Axis& x = place.axis[0];
      const Axis& y = place.axis[1];
      const Axis& z = place.axis[2];
      if (call.direction == nullptr) {
        Slope(x, y, z, s, slope);
      } else {
        SlopeAlong(x, y, z, s, call.direction + 3 * row, slope);
      }
      for (int a = 0; a < 3; ++a) sum[a] += slope[a];
    }
    for (int a = 0; a < 3; ++a) call.result[3 * row + a] = sum[a];
  }
};

template <template <int> class Point>
const char* LaunchForFeatures(CUstream_st* stream, int64_t n,
                              const HashGridCall& call) {
  switch (call.grid.num_features) {
    case 1:
      return Explain(ForEach(stream, n, Point<1>{call}));
    case 2:
      return Explain(ForEach(stream, n, Point<2>{call}));
    case 4:
      return Explain(ForEach(stream, n, Point<4>{call}));
    default:
      return Explain(ForEach(stream, n, Point<8>{call}));
  }
}

}  // namespace

const char* Launch(CUstream_st* stream, const HashGather& call) {
  return LaunchForFeatures<GatherPoint>(
      stream, call.num_batches * call.num_points * call.grid.num_levels, call);
}

const char* Launch(CUstream_st* stream, const HashScatter& call) {
  const size_t bytes = sizeof(float) * call.num_batches *
                       call.grid.num_entries * call.grid.num_features;
  if (const char* problem =
          Explain(cudaMemsetAsync(call.result, 0, bytes, stream))) {
    return problem;
  }
  return LaunchForFeatures<ScatterPoint>(
      stream, call.num_batches * call.num_points * call.grid.num_levels, call);
}

const char* Launch(CUstream_st* stream, const HashSlope& call) {
  return LaunchForFeatures<SlopePoint>(
      stream, call.num_batches * call.num_points, call);
}

}  // namespace dreamjax
