// The hash encoding's operations on a level, for one instruction set
// (for_each_unit.h); included once for each.

#include "hash_grid_block.h"

// Calls use(row, count) for the blocks of points [begin, end) of a batch; rows
// count the points of all batches.
template <class Use>
void ForBlocks(const HashGridCall& call, int64_t batch, int64_t begin,
               int64_t end, Use use) {
  for (int64_t i = begin; i < end; i += kPoints) {
    use(batch * call.num_points + i,
        static_cast<int>(std::min<int64_t>(kPoints, end - i)));
  }
}

// The same for a chunk; `part` counts those of all batches.
template <class Use>
void ForBlocksOfChunk(const HashGridCall& call, int64_t part, Use use) {
  const int64_t chunks = ChunksPerBatch(call);
  const int64_t begin = part % chunks * kChunk;
  ForBlocks(call, part / chunks, begin,
            std::min(begin + kChunk, call.num_points), use);
}

template <class Float>
Float* LevelOf(Float* table, const HashGrid& grid, int64_t batch, int l) {
  return table + (batch * grid.num_entries + grid.level[l].offset) *
                     grid.num_features;
}

// The cells of a block's points, and the weights of their corners or those'
// derivatives.
void Prepare(const HashGridCall& call, const Level& level, int64_t row,
             int count, const float* along, Block& block) {
  Vectors vectors;
  LoadRows(call.position, 3, row, count, vectors.at[0]);
  LocateBlock(level, vectors, block);
  if (along == nullptr) {
    FillWeights(level.scale, call.grid.smoothstep, block);
  } else {
    LoadRows(along, 3, row, count, vectors.at[0]);
    FillWeightsAlong(level.scale, call.grid.smoothstep, vectors, block);
  }
}

template <int F>
void Run(const HashGather& call, int64_t part) {
  const int64_t parts = call.num_batches * ChunksPerBatch(call);
  const int l = static_cast<int>(part / parts);
  const int64_t columns = int64_t{call.grid.num_levels} * F;
  const float* entries =
      LevelOf(call.table, call.grid, part % parts / ChunksPerBatch(call), l);
  Block block;
  ForBlocksOfChunk(call, part % parts, [&](int64_t row, int count) {
    Prepare(call, call.grid.level[l], row, count, call.direction, block);
    GatherPoints<F>(entries, block, count, columns,
                    call.result + row * columns + l * F);
  });
}

template <int F>
void Run(const HashSlope& call, int l, int64_t part) {
  const Level& level = call.grid.level[l];
  const int64_t columns = int64_t{call.grid.num_levels} * F;
  const float* entries =
      LevelOf(call.table, call.grid, part / ChunksPerBatch(call), l);
  Block block;
  ForBlocksOfChunk(call, part, [&](int64_t row, int count) {
    Vectors position, direction, sum = {};
    LoadRows(call.position, 3, row, count, position.at[0]);
    if (l > 0) LoadRows(call.result, 3, row, count, sum.at[0]);
    LocateBlock(level, position, block);
    DotPoints<F>(entries, call.cotangent + row * columns + l * F, count,
                 columns, block);
    if (call.direction == nullptr) {
      AddSlope(level.scale, call.grid.smoothstep, block, sum);
    } else {
      LoadRows(call.direction, 3, row, count, direction.at[0]);
      AddSlopeAlong(level.scale, call.grid.smoothstep, block, direction, sum);
    }
    StoreRows(sum.at[0], 3, row, count, call.result);
  });
}

template <int F>
void Run(const ScatterSplit& run, int64_t part) {
  using Row = Features<F>;
  const int64_t columns = int64_t{run.grid.num_levels} * F;
  const int64_t first = run.batch * run.num_points + run.begin;
  const int64_t begin = run.begin + part * kChunk;
  ForBlocks(run, run.batch, begin, std::min(begin + kChunk, run.end),
            [&](int64_t row, int count) {
    const float* from = run.cotangent + row * columns;
    for (int l = 0; l < run.grid.num_levels; ++l) {
      float* to = run.levels.get() + (l * Size(run) + row - first) * F;
      for (int i = 0; i < count; ++i) {
        Row::At(to, i) = Row::At(from + l * F, i, columns);
      }
    }
  });
}

template <int F>
void Run(const ScatterAdd& run, int64_t part) {
  // The finest level takes longest, so it begins first.
  const int l = run.grid.num_levels - 1 - static_cast<int>(part);
  const Level& level = run.grid.level[l];
  float* entries = LevelOf(run.result, run.grid, run.batch, l);
  if (run.is_first) {
    std::fill(entries, entries + int64_t{level.size} * F, 0.0f);
  }
  const float* cotangent = run.levels.get() + l * Size(run) * F;
  Block block;
  ForBlocks(run, run.batch, run.begin, run.end, [&](int64_t row, int count) {
    Prepare(run, level, row, count, run.direction, block);
    ScatterPoints<F>(cotangent, block, count, entries);
    cotangent += count * F;
  });
}

template <class Call, class... Part>
void RunForFeatures(const Call& call, Part... part) {
  switch (call.grid.num_features) {
    case 1:
      return Run<1>(call, part...);
    case 2:
      return Run<2>(call, part...);
    case 4:
      return Run<4>(call, part...);
    default:
      return Run<8>(call, part...);
  }
}
