// Hash encoding on a CPU.
//
// Arithmetic runs on blocks of points in vector registers; the table is then
// read or written point by point at the block's indices, which were prefetched
// one block ahead. A part takes all levels of a chunk of points, one after the
// other, so that a level stays in the cache; or, where it adds to the table,
// all points of one level, so that no other part adds there.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu.h"
#include "hash_grid.h"

namespace dreamjax {
namespace {

constexpr int kBlock = 256;
constexpr int kBlocksPerChunk = 32;
constexpr int64_t kChunk = kBlocksPerChunk * kBlock;
// A level below this size is in a core's cache anyway.
constexpr int64_t kPrefetchBytes = int64_t{1} << 18;

// Vectors of a block of points, one array per axis, zero beyond the last.
struct Vectors {
  alignas(64) float at[3][kBlock];
};

struct Block {
  alignas(64) int32_t index[8][kBlock];
  alignas(64) float fraction[3][kBlock];
  alignas(64) float corner[8][kBlock];  // a number per corner
};

void Load(const float* from, int64_t count, Vectors& to) {
  const int n = static_cast<int>(std::min<int64_t>(count, kBlock));
  for (int i = 0; i < n; ++i) {
    for (int axis = 0; axis < 3; ++axis) to.at[axis][i] = from[3 * i + axis];
  }
  for (int axis = 0; axis < 3; ++axis) {
    std::fill(to.at[axis] + n, to.at[axis] + kBlock, 0.0f);
  }
}

// Vector loops. Each is an always-inlined template, and below it the function
// that chooses its constants and is compiled for several instruction sets.

template <bool kDense>
DJ_HD void LocateAll(const Level& level, const Vectors& position,
                     Block& __restrict block) {
  for (int i = 0; i < kBlock; ++i) {
    const Cell cell = Locate<kDense>(level, position.at[0][i],
                                     position.at[1][i], position.at[2][i]);
    for (int k = 0; k < 8; ++k) block.index[k][i] = cell.index[k];
    for (int axis = 0; axis < 3; ++axis) {
      block.fraction[axis][i] = cell.fraction[axis];
    }
  }
}

DJ_CLONES void LocateBlock(const Level& level, const Vectors& position,
                           Block& block) {
  if (level.dense) return LocateAll<true>(level, position, block);
  return LocateAll<false>(level, position, block);
}

template <bool kSmooth>
DJ_HD void AxesAt(const Block& block, int i, float scale, Axis axis[3]) {
  for (int a = 0; a < 3; ++a) {
    axis[a] = MakeAxis(block.fraction[a][i], scale, kSmooth);
  }
}

template <bool kSmooth>
DJ_HD void WeightsAll(float scale, Block& block) {
  for (int i = 0; i < kBlock; ++i) {
    Axis a[3];
    AxesAt<kSmooth>(block, i, scale, a);
    for (int k = 0; k < 8; ++k) {
      block.corner[k][i] = Weight(a[0], a[1], a[2], k);
    }
  }
}

DJ_CLONES void FillWeights(float scale, bool smoothstep, Block& block) {
  if (smoothstep) return WeightsAll<true>(scale, block);
  return WeightsAll<false>(scale, block);
}

template <bool kSmooth>
DJ_HD void WeightsAlongAll(float scale, const Vectors& direction,
                           Block& __restrict block) {
  for (int i = 0; i < kBlock; ++i) {
    Axis a[3];
    AxesAt<kSmooth>(block, i, scale, a);
    const float v[3] = {direction.at[0][i], direction.at[1][i],
                        direction.at[2][i]};
    for (int k = 0; k < 8; ++k) {
      block.corner[k][i] = WeightAlong(a[0], a[1], a[2], k, v);
    }
  }
}

DJ_CLONES void FillWeightsAlong(float scale, bool smoothstep,
                                const Vectors& direction, Block& block) {
  if (smoothstep) return WeightsAlongAll<true>(scale, direction, block);
  return WeightsAlongAll<false>(scale, direction, block);
}

template <bool kSmooth, bool kAlong>
DJ_HD void SlopeAll(float scale, const Block& block, const Vectors* direction,
                    Vectors& __restrict sum) {
  for (int i = 0; i < kBlock; ++i) {
    Axis a[3];
    AxesAt<kSmooth>(block, i, scale, a);
    float s[8], slope[3];
    for (int k = 0; k < 8; ++k) s[k] = block.corner[k][i];
    if (kAlong) {
      const float v[3] = {direction->at[0][i], direction->at[1][i],
                          direction->at[2][i]};
      SlopeAlong(a[0], a[1], a[2], s, v, slope);
    } else {
      Slope(a[0], a[1], a[2], s, slope);
    }
    for (int axis = 0; axis < 3; ++axis) sum.at[axis][i] += slope[axis];
  }
}

DJ_CLONES void AddSlope(float scale, bool smoothstep, const Block& block,
                        Vectors& sum) {
  if (smoothstep) return SlopeAll<true, false>(scale, block, nullptr, sum);
  return SlopeAll<false, false>(scale, block, nullptr, sum);
}

DJ_CLONES void AddSlopeAlong(float scale, bool smoothstep, const Block& block,
                             const Vectors& direction, Vectors& sum) {
  if (smoothstep) return SlopeAll<true, true>(scale, block, &direction, sum);
  return SlopeAll<false, true>(scale, block, &direction, sum);
}

// Table loops, for F features: GCC turns the innermost one into one vector
// instruction.

template <int F>
void GatherPoints(const float* entries, const Block& block, int count,
                  int64_t stride, float* feature) {
  for (int i = 0; i < count; ++i) {
    float sum[F] = {};
    for (int k = 0; k < 8; ++k) {
      const float* entry = entries + int64_t{block.index[k][i]} * F;
      const float weight = block.corner[k][i];
      for (int f = 0; f < F; ++f) sum[f] += weight * entry[f];
    }
    for (int f = 0; f < F; ++f) feature[i * stride + f] = sum[f];
  }
}

template <int F>
void ScatterPoints(const float* cotangent, const Block& block, int count,
                   int64_t stride, float* entries) {
  for (int i = 0; i < count; ++i) {
    float g[F];
    for (int f = 0; f < F; ++f) g[f] = cotangent[i * stride + f];
    for (int k = 0; k < 8; ++k) {
      float* entry = entries + int64_t{block.index[k][i]} * F;
      const float weight = block.corner[k][i];
      for (int f = 0; f < F; ++f) entry[f] += weight * g[f];
    }
  }
}

// The number of corner k: <cotangent, entry of the corner>.
template <int F>
void DotPoints(const float* entries, const float* cotangent, int count,
               int64_t stride, Block& block) {
  for (int i = 0; i < count; ++i) {
    float g[F];
    for (int f = 0; f < F; ++f) g[f] = cotangent[i * stride + f];
    for (int k = 0; k < 8; ++k) {
      const float* entry = entries + int64_t{block.index[k][i]} * F;
      float sum = 0.0f;
      for (int f = 0; f < F; ++f) sum += g[f] * entry[f];
      block.corner[k][i] = sum;
    }
  }
}

// Finds the cells of a block and asks for their entries: to read them, or for
// this core alone, to add to them.
template <bool kAdd>
void Prepare(const Level& level, int num_features, const float* entries,
             const Vectors& position, Block& block) {
  LocateBlock(level, position, block);
  if (int64_t{level.size} * num_features * 4 < kPrefetchBytes) return;
  for (const auto& indices : block.index) {
    for (const int32_t index : indices) {
      __builtin_prefetch(entries + int64_t{index} * num_features, kAdd);
    }
  }
}

template <bool kAdd>
void PrepareWeights(const HashGrid& grid, const Level& level,
                    const float* entries, const Vectors& position,
                    const Vectors* direction, Block& block) {
  Prepare<kAdd>(level, grid.num_features, entries, position, block);
  if (direction == nullptr) {
    FillWeights(level.scale, grid.smoothstep, block);
  } else {
    FillWeightsAlong(level.scale, grid.smoothstep, *direction, block);
  }
}

// Prepares each block while the one before it is used.
template <class PrepareBlock, class UseBlock>
void Pipeline(int64_t num_blocks, PrepareBlock prepare, UseBlock use) {
  Block block[2];
  prepare(0, block[0]);
  for (int64_t b = 0; b < num_blocks; ++b) {
    if (b + 1 < num_blocks) prepare(b + 1, block[(b + 1) % 2]);
    use(b, block[b % 2]);
  }
}

// A run of points of one batch element, in blocks.
struct Points {
  Points(const HashGridCall& call, int64_t batch, int64_t begin, int64_t end)
      : first(batch * call.num_points + begin),
        count(end - begin),
        num_blocks((count + kBlock - 1) / kBlock) {}

  int CountIn(int64_t block) const {
    return static_cast<int>(std::min<int64_t>(kBlock, count - block * kBlock));
  }
  int64_t RowOf(int64_t block) const { return first + block * kBlock; }

  std::vector<Vectors> LoadAll(const float* from) const {
    std::vector<Vectors> vectors(from == nullptr ? 0 : num_blocks);
    for (size_t b = 0; b < vectors.size(); ++b) {
      Load(from + 3 * RowOf(b), CountIn(b), vectors[b]);
    }
    return vectors;
  }

  int64_t first, count, num_blocks;
};

int64_t ChunksPerBatch(const HashGridCall& call) {
  return (call.num_points + kChunk - 1) / kChunk;
}

Points ChunkOf(const HashGridCall& call, int64_t part) {
  const int64_t chunks = ChunksPerBatch(call);
  const int64_t begin = part % chunks * kChunk;
  return Points(call, part / chunks, begin,
                std::min(begin + kChunk, call.num_points));
}

const float* EntriesOf(const HashGridCall& call, int64_t batch,
                       const Level& level) {
  return call.table +
         (batch * call.grid.num_entries + level.offset) *
             call.grid.num_features;
}

template <int F>
void Run(const HashGather& call, int64_t part) {
  const HashGrid& grid = call.grid;
  const Points points = ChunkOf(call, part);
  const int64_t columns = int64_t{grid.num_levels} * F;
  const auto position = points.LoadAll(call.position);
  const auto direction = points.LoadAll(call.direction);
  for (int l = 0; l < grid.num_levels; ++l) {
    const Level& level = grid.level[l];
    const float* entries =
        EntriesOf(call, part / ChunksPerBatch(call), level);
    Pipeline(
        points.num_blocks,
        [&](int64_t b, Block& block) {
          PrepareWeights<false>(grid, level, entries, position[b],
                                direction.empty() ? nullptr : &direction[b],
                                block);
        },
        [&](int64_t b, Block& block) {
          GatherPoints<F>(entries, block, points.CountIn(b), columns,
                          call.result + points.RowOf(b) * columns + l * F);
        });
  }
}

template <int F>
void Run(const HashSlope& call, int64_t part) {
  const HashGrid& grid = call.grid;
  const Points points = ChunkOf(call, part);
  const int64_t columns = int64_t{grid.num_levels} * F;
  const auto position = points.LoadAll(call.position);
  const auto direction = points.LoadAll(call.direction);
  std::vector<Vectors> sum(points.num_blocks, Vectors{});
  for (int l = 0; l < grid.num_levels; ++l) {
    const Level& level = grid.level[l];
    const float* entries =
        EntriesOf(call, part / ChunksPerBatch(call), level);
    Pipeline(
        points.num_blocks,
        [&](int64_t b, Block& block) {
          Prepare<false>(level, F, entries, position[b], block);
        },
        [&](int64_t b, Block& block) {
          const float* g = call.cotangent + points.RowOf(b) * columns + l * F;
          DotPoints<F>(entries, g, points.CountIn(b), columns, block);
          if (direction.empty()) {
            AddSlope(level.scale, grid.smoothstep, block, sum[b]);
          } else {
            AddSlopeAlong(level.scale, grid.smoothstep, block, direction[b],
                          sum[b]);
          }
        });
  }
  for (int64_t b = 0; b < points.num_blocks; ++b) {
    float* result = call.result + 3 * points.RowOf(b);
    for (int i = 0; i < points.CountIn(b); ++i) {
      for (int axis = 0; axis < 3; ++axis) {
        result[3 * i + axis] = sum[b].at[axis][i];
      }
    }
  }
}

template <int F>
void Run(const HashScatter& call, int64_t part) {
  const HashGrid& grid = call.grid;
  const int64_t batch = part / grid.num_levels;
  // The finest level takes longest, so it begins first.
  const int l = grid.num_levels - 1 - static_cast<int>(part % grid.num_levels);
  const Level& level = grid.level[l];
  const Points points(call, batch, 0, call.num_points);
  const int64_t columns = int64_t{grid.num_levels} * F;
  float* entries =
      call.result + (batch * grid.num_entries + level.offset) * F;
  std::fill(entries, entries + int64_t{level.size} * F, 0.0f);
  if (points.count == 0) return;
  const auto add = [&](const float* cotangent, const float* along) {
    Vectors position, direction;
    Pipeline(
        points.num_blocks,
        [&](int64_t b, Block& block) {
          const int64_t row = 3 * points.RowOf(b);
          Load(call.position + row, points.CountIn(b), position);
          if (along != nullptr) {
            Load(along + row, points.CountIn(b), direction);
          }
          PrepareWeights<true>(grid, level, entries, position,
                               along == nullptr ? nullptr : &direction, block);
        },
        [&](int64_t b, Block& block) {
          const float* g = cotangent + points.RowOf(b) * columns + l * F;
          ScatterPoints<F>(g, block, points.CountIn(b), columns, entries);
        });
  };
  add(call.cotangent, call.direction);
  if (call.plain != nullptr) add(call.plain, nullptr);
}

template <class Call>
void RunForFeatures(const Call& call, int64_t part) {
  switch (call.grid.num_features) {
    case 1:
      return Run<1>(call, part);
    case 2:
      return Run<2>(call, part);
    case 4:
      return Run<4>(call, part);
    default:
      return Run<8>(call, part);
  }
}

}  // namespace

int64_t NumParts(const HashGather& call) {
  return call.num_batches * ChunksPerBatch(call);
}

int64_t NumParts(const HashSlope& call) {
  return call.num_batches * ChunksPerBatch(call);
}

int64_t NumParts(const HashScatter& call) {
  return call.num_batches * call.grid.num_levels;
}

void RunPart(const HashGather& call, int64_t part) {
  RunForFeatures(call, part);
}

void RunPart(const HashSlope& call, int64_t part) { RunForFeatures(call, part); }

void RunPart(const HashScatter& call, int64_t part) {
  RunForFeatures(call, part);
}

}  // namespace dreamjax
