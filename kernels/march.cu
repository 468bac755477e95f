// Marching on a GPU: one thread per ray counts and writes; one block per batch
// sums the counts, in ray order, so that the slots do not depend on timing.

#include "launch.h"
#include "march.h"

namespace dreamjax {
namespace {

constexpr int kScanThreads = 1024;
constexpr int kWarp = 32;

// The sum over the warp's lanes up to this one.
__device__ int64_t WarpScan(int64_t x, int lane) {
  for (int step = 1; step < kWarp; step *= 2) {
    const int64_t other = __shfl_up_sync(~0u, x, step);
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
    if (warp > 0) sum += __shfl_sync(~0u, totals, warp - 1);
    before += __shfl_sync(~0u, totals, kWarp - 1);
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
  cudaError_t error = ForEach(stream, rays, CountSamples<OneByOne>{march});
  if (error == cudaSuccess) {
    ScanCounts<<<static_cast<unsigned>(march.num_batches), kScanThreads, 0,
                 stream>>>(march);
    error = cudaGetLastError();
  }
  if (error == cudaSuccess) {
    error = ForEach(stream, rays, WriteSamples<OneByOne>{march});
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
