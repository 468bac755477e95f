// Each operation on a pool of CPU threads. Work is cut into parts that may run
// in any order on any thread and give the same bits however they are shared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "composite.h"
#include "core.h"
#include "hash_grid.h"
#include "hash_mlp.h"
#include "march.h"
#include "mlp.h"

namespace dreamjax {

// What computes.
enum class VectorUnit { kPlain, kAvx2, kAvx512 };

// The widest that this processor has.
VectorUnit BestVectorUnit();

// The parts of an operation.
int64_t NumParts(const HashGather& call);
int64_t NumPartsOfLevel(const HashSlope& call);

void RunPart(const HashGather& call, int64_t part,
             VectorUnit unit = BestVectorUnit());
// Adds a level's share; the first level's is the result so far.
void RunPartOfLevel(const HashSlope& call, int level, int64_t part,
                    VectorUnit unit = BestVectorUnit());

// A run of a batch's points, whose cotangents are added to the table at once.
struct ScatterRun : HashGridCall {
  int64_t batch, begin, end;
  bool is_first;                    // nothing was added before
  std::shared_ptr<float[]> levels;  // [L, end - begin, F]
};
// levels = the cotangents of the run.
struct ScatterSplit : ScatterRun {};
// Adds the levels, weighted, to their entries.
struct ScatterAdd : ScatterRun {};

// All that make up a call, to be run in turn.
std::vector<ScatterRun> RunsOf(const HashScatter& call);

int64_t NumParts(const ScatterSplit& run);
int64_t NumParts(const ScatterAdd& run);

void RunPart(const ScatterSplit& run, int64_t part,
             VectorUnit unit = BestVectorUnit());
void RunPart(const ScatterAdd& run, int64_t part,
             VectorUnit unit = BestVectorUnit());

int64_t NumParts(const MlpValue& call);
int64_t NumParts(const MlpInputGradient& call);
int64_t NumParts(const MlpGradient& call);
int64_t NumParts(const MlpSecond& call);

void RunPart(const MlpValue& call, int64_t part,
             VectorUnit unit = BestVectorUnit());
void RunPart(const MlpInputGradient& call, int64_t part,
             VectorUnit unit = BestVectorUnit());
void RunPart(const MlpGradient& call, int64_t part,
             VectorUnit unit = BestVectorUnit());
void RunPart(const MlpSecond& call, int64_t part,
             VectorUnit unit = BestVectorUnit());

int64_t NumParts(const HashMlpValue& call);
int64_t NumParts(const HashMlpPull& call);
int64_t NumParts(const HashMlpScatter& call);

void RunPart(const HashMlpValue& call, int64_t part,
             VectorUnit unit = BestVectorUnit());
void RunPart(const HashMlpPull& call, int64_t part,
             VectorUnit unit = BestVectorUnit());
void RunPart(const HashMlpScatter& call, int64_t part,
             VectorUnit unit = BestVectorUnit());

int64_t NumParts(const CompositeForward& call);
int64_t NumParts(const CompositeBackward& call);

void RunPart(const CompositeForward& call, int64_t part);
void RunPart(const CompositeBackward& call, int64_t part);

// A run of a ray's candidates.
struct CandidateRun {
  static constexpr int kSize = 16;
  float distance[kSize];
  int32_t bit[kSize];
};

void Fill(const Candidates& candidates, int32_t first, CandidateRun& run);

// Calls keep(distance) for each sample of a ray, nearest first, while it
// returns true.
template <class Keep>
void ForSamples(const March& m, int64_t batch, int64_t ray, Keep keep) {
  const Candidates candidates = CandidatesOf(m, batch, ray);
  const uint8_t* occupancy = OccupancyOf(m, batch);
  CandidateRun run;
  for (int32_t k = 0; k < m.num_candidates; ++k) {
    const int i = k % CandidateRun::kSize;
    if (i == 0) Fill(candidates, k, run);
    if (!(run.distance[i] < candidates.span.far)) return;
    if (IsSet(occupancy, run.bit[i]) && !keep(run.distance[i])) return;
  }
}

// Pass 1: offset[r + 1] = number of samples of ray r.
struct CountSamples {
  March m;
  void operator()(int64_t i) const {
    const int64_t batch = i / m.num_rays, ray = i % m.num_rays;
    int32_t count = 0;
    ForSamples(m, batch, ray, [&count](float) {
      ++count;
      return true;
    });
    m.offset[batch * (m.num_rays + 1) + ray + 1] = count;
  }
};

// Pass 3: each ray fills its slots.
struct WriteSamples {
  March m;
  void operator()(int64_t i) const {
    const int64_t batch = i / m.num_rays, ray = i % m.num_rays;
    const int32_t* offset = m.offset + batch * (m.num_rays + 1) + ray;
    int64_t slot = batch * m.num_slots + offset[0];
    const int64_t end = batch * m.num_slots + offset[1];
    if (slot == end) return;
    const March& to = m;
    ForSamples(m, batch, ray, [&slot, end, ray, &to](float distance) {
      to.distance[slot] = distance;
      to.width[slot] = to.step;
      to.ray[slot] = static_cast<int32_t>(ray);
      return ++slot < end;
    });
  }
};

// Calls f(i) once for each i in [0, n), in parts of `grain`.
template <class Pool, class F>
void ForEach(Pool& pool, int64_t n, int64_t grain, const F& f) {
  ParallelFor(pool, (n + grain - 1) / grain, [n, grain, f](int64_t part) {
    const int64_t end = std::min(n, (part + 1) * grain);
    for (int64_t i = part * grain; i < end; ++i) f(i);
  });
}

// Calls clear(i) for each slot that no ray owns; i counts those of all batches.
template <class Pool, class Call, class Clear>
void ForEachFree(Pool& pool, const Call& call, const Clear& clear) {
  constexpr int64_t kSlotsPerPart = 1 << 14;
  for (int64_t batch = 0; batch < call.num_batches; ++batch) {
    const int64_t used = NumUsed(call, batch);
    ForEach(pool, call.num_slots - used, kSlotsPerPart,
            [first = batch * call.num_slots + used, clear](int64_t i) {
              clear(first + i);
            });
  }
}

constexpr int64_t kRaysPerPart = 64;

template <class Pool, class Call>
void Run(Pool& pool, const Call& call, VectorUnit unit = BestVectorUnit()) {
  ParallelFor(pool, NumParts(call),
              [call, unit](int64_t part) { RunPart(call, part, unit); });
}

// A result is a sum over the levels, which have to come in turn.
template <class Pool>
void Run(Pool& pool, const HashSlope& call,
         VectorUnit unit = BestVectorUnit()) {
  for (int level = 0; level < call.grid.num_levels; ++level) {
    ParallelFor(pool, NumPartsOfLevel(call), [call, level, unit](int64_t part) {
      RunPartOfLevel(call, level, part, unit);
    });
  }
}

template <class Pool>
void Run(Pool& pool, const HashScatter& call,
         VectorUnit unit = BestVectorUnit()) {
  for (const ScatterRun& run : RunsOf(call)) {
    Run(pool, ScatterSplit{run}, unit);
    Run(pool, ScatterAdd{run}, unit);
  }
}

template <class Pool>
void Run(Pool& pool, const March& march) {
  const int64_t num_rays = march.num_batches * march.num_rays;
  ForEach(pool, num_rays, kRaysPerPart, CountSamples{march});
  for (int64_t batch = 0; batch < march.num_batches; ++batch) {
    SumCounts(march, batch);
  }
  ForEach(pool, num_rays, kRaysPerPart, WriteSamples{march});
  ForEachFree(pool, march, ClearSlot{march});
}

template <class Pool>
void Run(Pool& pool, const CompositeForward& forward) {
  ParallelFor(pool, NumParts(forward),
              [forward](int64_t part) { RunPart(forward, part); });
  ForEachFree(pool, forward.c, ClearWeight{forward});
}

template <class Pool>
void Run(Pool& pool, const CompositeBackward& backward) {
  ParallelFor(pool, NumParts(backward),
              [backward](int64_t part) { RunPart(backward, part); });
  ForEachFree(pool, backward.c, ClearGradients{backward});
}

}  // namespace dreamjax
