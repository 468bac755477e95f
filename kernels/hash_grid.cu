// Hash encoding on a GPU: one thread per point and level, all threads of a block
// on one level; neighbouring lanes have neighbouring points, samples of one ray
// where a ray has many.

#include <cstdint>
#include <type_traits>

#include "hash_grid.h"
#include "launch.h"

namespace dreamjax {
namespace {

// A point on a level, and where its numbers are.
struct Place {
  __device__ Place(const HashGridCall& call, int64_t row, int l)
      : level(call.grid.level[l]) {
    const int64_t batch = call.num_batches == 1 ? 0 : row / call.num_points;
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
      along[a] = call.direction == nullptr ? 0.0f : call.direction[3 * row + a];
    }
  }

  // The weight of corner k, or its derivative along the row's direction.
  __device__ float WeightOf(const HashGridCall& call, int k) const {
    if (call.direction == nullptr) {
      return Weight(axis[0], axis[1], axis[2], k);
    }
    return WeightAlong(axis[0], axis[1], axis[2], k, along);
  }

  const Level& level;
  int64_t feature;  // in [B, N, L F]
  int64_t entry;    // in [B, T, F], of the level's first entry
  Cell cell;
  Axis axis[3];
  float along[3];   // the row's direction, if there is one
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

// Corners k and k + 1, k even, are neighbours along x. Where their entries are
// too, and together are aligned (half of all cells), both are one word.
__device__ bool AreOneWord(const Cell& cell, int k) {
  return (cell.index[k] ^ cell.index[k + 1]) == 1;
}

// The entries of corners k and k + 1; `from` is the level's first entry.
template <int F>
__device__ void ReadPair(const float* from, const Cell& cell, int k,
                         Vector<F> entry[2]) {
  const int32_t index[2] = {cell.index[k], cell.index[k + 1]};
  if (2 * F <= 4 && AreOneWord(cell, k)) {
    const auto both = Read<2 * F>(from + int64_t{index[0] & ~1} * F);
    const int first = (index[0] & 1) * F;
    for (int f = 0; f < F; ++f) {
      entry[0].at[f] = first == 0 ? both.at[f] : both.at[F + f];
      entry[1].at[f] = first == 0 ? both.at[F + f] : both.at[f];
    }
  } else {
    entry[0] = Read<F>(from + int64_t{index[0]} * F);
    entry[1] = Read<F>(from + int64_t{index[1]} * F);
  }
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

// As ReadPair.
template <int F>
__device__ void AddPair(float* to, const Cell& cell, int k,
                        const Vector<F> part[2]) {
  const int32_t index[2] = {cell.index[k], cell.index[k + 1]};
  if (2 * F <= 4 && AreOneWord(cell, k)) {
    const int second = index[0] & 1;
    Vector<2 * F> both;
    for (int f = 0; f < F; ++f) {
      both.at[f] = second == 0 ? part[0].at[f] : part[1].at[f];
      both.at[F + f] = second == 0 ? part[1].at[f] : part[0].at[f];
    }
    Add<2 * F>(to + int64_t{index[0] & ~1} * F, both);
  } else {
    Add<F>(to + int64_t{index[0]} * F, part[0]);
    Add<F>(to + int64_t{index[1]} * F, part[1]);
  }
}

// A level is a layer.
template <int F>
struct GatherPoint {
  HashGridCall call;
  __device__ void operator()(int64_t row) const {
    const Place place(call, row, static_cast<int>(blockIdx.y));
    Vector<F> sum = {};
DJ_UNROLL(4)
    for (int k = 0; k < 8; k += 2) {
      Vector<F> entry[2];
      ReadPair<F>(call.table + place.entry, place.cell, k, entry);
      for (int j = 0; j < 2; ++j) {
        const float weight = place.WeightOf(call, k + j);
        for (int f = 0; f < F; ++f) sum.at[f] += weight * entry[j].at[f];
      }
    }
    *reinterpret_cast<Vector<F>*>(call.result + place.feature) = sum;
  }
};

// Lanes side by side whose points share a cell, as those of a ray do on coarse
// levels.
struct Run {
  bool is_first;
  int length;   // lanes from this one to the last of its run
  int longest;  // of all runs, the same on all lanes
};

__device__ Run RunOf(const Place& place, int lane) {
  bool is_same = lane > 0;
  const auto compare = [&is_same](auto x) {
    const auto before = __shfl_up_sync(kAllLanes, x, 1);
    is_same = is_same && x == before;
  };
  compare(place.entry);  // Which tells batches apart.
  for (int a = 0; a < 3; ++a) compare(place.cell.low[a]);
  const unsigned firsts = __ballot_sync(kAllLanes, !is_same);
  const unsigned later = firsts >> lane >> 1;
  const int length = later == 0 ? kWarp - lane : __ffs(later);
  const unsigned longest = __reduce_max_sync(kAllLanes, length);
  return {!is_same, length, static_cast<int>(longest)};
}

// The first lane of each run gets the run's sum.
template <int F>
__device__ void SumRun(const Run& run, Vector<F>& v) {
  for (int step = 1; step < run.longest; step *= 2) {
    for (int f = 0; f < F; ++f) {
      const float other = __shfl_down_sync(kAllLanes, v.at[f], step);
      if (step < run.length) v.at[f] += other;
    }
  }
}

// A level is a layer. Adds once per run of lanes; runs in whatever order they
// arrive, so the last bits differ between calls.
template <int F>
struct ScatterPoints {
  HashScatter call;
  __device__ void operator()(int64_t warp, int lane) const {
    const int64_t rows = call.num_batches * call.num_points;
    const int64_t thread = warp * kWarp + lane;
    const int64_t row = thread < rows ? thread : rows - 1;
    const Place place(call, row, static_cast<int>(blockIdx.y));
    const bool has_plain = call.plain != nullptr;
    Vector<F> g = {}, plain = {};
    if (thread < rows) {
      g = Read<F>(call.cotangent + place.feature);
      if (has_plain) plain = Read<F>(call.plain + place.feature);
    }
    const Run run = RunOf(place, lane);
DJ_UNROLL(4)
    for (int k = 0; k < 8; k += 2) {
      Vector<F> part[2];
      for (int j = 0; j < 2; ++j) {
        const float weight = place.WeightOf(call, k + j);
        for (int f = 0; f < F; ++f) part[j].at[f] = weight * g.at[f];
        if (has_plain) {
          const float own =
              Weight(place.axis[0], place.axis[1], place.axis[2], k + j);
          for (int f = 0; f < F; ++f) part[j].at[f] += own * plain.at[f];
        }
        SumRun<F>(run, part[j]);
      }
      if (run.is_first) {
        AddPair<F>(call.result + place.entry, place.cell, k, part);
      }
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
DJ_UNROLL(4)
      for (int k = 0; k < 8; k += 2) {
        Vector<F> entry[2];
        ReadPair<F>(call.table + place.entry, place.cell, k, entry);
        for (int j = 0; j < 2; ++j) {
          s[k + j] = 0.0f;
          for (int f = 0; f < F; ++f) s[k + j] += g.at[f] * entry[j].at[f];
        }
      }
      const Axis& x = place.axis[0];
      const Axis& y = place.axis[1];
      const Axis& z = place.axis[2];
      if (call.direction == nullptr) {
        Slope(x, y, z, s, slope);
      } else {
        SlopeAlong(x, y, z, s, place.along, slope);
      }
      for (int a = 0; a < 3; ++a) sum[a] += slope[a];
    }
    for (int a = 0; a < 3; ++a) call.result[3 * row + a] = sum[a];
  }
};

// Calls launch(F) with the number of features as a constant.
template <class Launch>
const char* ForFeatures(const HashGridCall& call, Launch launch) {
  switch (call.grid.num_features) {
    case 1:
      return Explain(launch(std::integral_constant<int, 1>()));
    case 2:
      return Explain(launch(std::integral_constant<int, 2>()));
    case 4:
      return Explain(launch(std::integral_constant<int, 4>()));
    default:
      return Explain(launch(std::integral_constant<int, 8>()));
  }
}

}  // namespace

const char* Launch(CUstream_st* stream, const HashGather& call) {
  return ForFeatures(call, [&](auto features) {
    return ForEach(stream, call.num_batches * call.num_points,
                   GatherPoint<features()>{call}, call.grid.num_levels);
  });
}

const char* Launch(CUstream_st* stream, const HashScatter& call) {
  const size_t bytes = sizeof(float) * call.num_batches *
                       call.grid.num_entries * call.grid.num_features;
  if (const char* problem =
          Explain(cudaMemsetAsync(call.result, 0, bytes, stream))) {
    return problem;
  }
  const int64_t rows = call.num_batches * call.num_points;
  return ForFeatures(call, [&](auto features) {
    return ForEachWarp(stream, (rows + kWarp - 1) / kWarp,
                       ScatterPoints<features()>{call}, call.grid.num_levels);
  });
}

const char* Launch(CUstream_st* stream, const HashSlope& call) {
  return ForFeatures(call, [&](auto features) {
    return ForEach(stream, call.num_batches * call.num_points,
                   SlopePoint<features()>{call});
  });
}

}  // namespace dreamjax
