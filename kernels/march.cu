// Marching on a GPU: one warp per ray looks at 32 candidates at a time, counts,
// and writes side by side; one block per batch sums the counts, in ray order, so
// that the slots do not depend on timing.

#include "launch.h"
#include "march.h"

namespace dreamjax {
namespace {

constexpr int kScanThreads = 1024;

// Calls visit(distance, samples) on all lanes for each 32 candidates of a ray,
// nearest first, while it returns true: a lane's own distance, and the bits of
// the lanes whose candidate is a sample.
template <class Visit>
__device__ void ForSamples(const March& m, int64_t i, int lane, Visit visit) {
  const int64_t batch = i / m.num_rays, ray = i % m.num_rays;
  const Candidates candidates = CandidatesOf(m, batch, ray);
  const uint8_t* occupancy = OccupancyOf(m, batch);
  for (int32_t first = 0; first < m.num_candidates; first += kWarp) {
    const int32_t k = first + lane;
    const float t = candidates.Distance(k);
    const bool is_inside = k < m.num_candidates && t < candidates.span.far;
    const bool is_sample = is_inside && IsSet(occupancy, candidates.Bit(t));
    if (!visit(t, __ballot_sync(kAllLanes, is_sample))) return;
    if (__ballot_sync(kAllLanes, is_inside) != kAllLanes) return;
  }
}

// offset[r + 1] = number of samples of ray r.
struct CountRay {
  March m;
  __device__ void operator()(int64_t i, int lane) const {
    int32_t count = 0;
    ForSamples(m, i, lane, [&count](float, unsigned samples) {
      count += __popc(samples);
      return true;
    });
    if (lane == 0) m.offset[i + i / m.num_rays + 1] = count;
  }
};

// Fills the slots of a ray.
struct WriteRay {
  March m;
  __device__ void operator()(int64_t i, int lane) const {
    const int64_t batch = i / m.num_rays;
    const int32_t* offset = m.offset + i + batch;
    int64_t next = batch * m.num_slots + offset[0];
    const int64_t end = batch * m.num_slots + offset[1];
    if (next == end) return;
    const March& to = m;
    const int32_t ray = static_cast<int32_t>(i % m.num_rays);
    ForSamples(m, i, lane, [&](float distance, unsigned samples) {
      const int64_t slot = next + __popc(samples & ((1u << lane) - 1));
      if ((samples >> lane & 1) != 0 && slot < end) {
        to.distance[slot] = distance;
        to.width[slot] = to.step;
        to.ray[slot] = ray;
      }
      next += __popc(samples);
      return next < end;
    });
  }
};

// The sum over the warp's lanes up to this one.
__device__ int64_t WarpScan(int64_t x, int lane) {
  for (int step = 1; step < kWarp; step *= 2) {
    const int64_t other = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += other;
  }
  return x;
}

// Counts to offsets, as `SumCounts`.
__global__ void __launch_bounds__(kScanThreads) ScanCounts(March m) {
  __shared__ int64_t warp_total[kWarp];
  const int64_t batch = blockIdx.x;
  int32_t* offset = m.offset + batch * (m.num_rays + 1);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int64_t before = 0;
  for (int64_t first = 1; first <= m.num_rays; first += kScanThreads) {
    const int64_t ray = first + threadIdx.x;
    int64_t sum = WarpScan(ray <= m.num_rays ? offset[ray] : 0, lane);
    if (lane == kWarp - 1) warp_total[warp] = sum;
    __syncthreads();
    const int64_t totals = WarpScan(warp_total[lane], lane);
    sum += before;
    if (warp > 0) sum += __shfl_sync(kAllLanes, totals, warp - 1);
    before += __shfl_sync(kAllLanes, totals, kWarp - 1);
    if (ray <= m.num_rays) {
      offset[ray] = static_cast<int32_t>(min(sum, m.num_slots));
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    offset[0] = 0;
    m.overflow[batch] =
        static_cast<int32_t>(max(before - m.num_slots, int64_t{0}));
  }
}

}  // namespace

const char* Launch(CUstream_st* stream, const March& march) {
  const int64_t rays = march.num_batches * march.num_rays;
  if (march.num_batches == 0) return nullptr;
  cudaError_t error = ForEachWarp(stream, rays, CountRay{march});
  if (error == cudaSuccess) {
    error = LaunchBlocks(stream, {march.num_batches, kScanThreads}, ScanCounts,
                         march);
  }
  if (error == cudaSuccess) {
    error = ForEachWarp(stream, rays, WriteRay{march});
  }
  if (error == cudaSuccess) {
    error = ForEachFree(stream, march, ClearSlot{march});
  }
  return Explain(error);
}

const char* CudaProblem() {
  int driver = 0, runtime = 0;
  cudaError_t error = cudaRuntimeGetVersion(&runtime);
  if (error == cudaSuccess) error = cudaDriverGetVersion(&driver);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (driver != 0 && driver / 1000 < runtime / 1000) {
    return "CUDA kernels need a newer driver";
  }
  return nullptr;
}

}  // namespace dreamjax
