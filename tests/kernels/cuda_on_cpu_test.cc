// What stands for CUDA on a CPU: threads tell each other what they should, and
// a kernel that a GPU would hang on, or answer wrongly, is stopped.

#include "cuda_on_cpu/cuda_runtime.h"

#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"

namespace dreamjax {
namespace {

constexpr int kThreads = 64;

template <class Kernel>
void Launch(unsigned blocks, Kernel kernel, int* result) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(kThreads);
  EXPECT(cudaLaunchKernelEx(&config, kernel, result) == cudaSuccess);
}

void Exchange(int* result) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int up = __shfl_up_sync(~0u, 100 * warp + lane, 3);
  EXPECT(up == 100 * warp + (lane < 3 ? lane : lane - 3));
  const int down = __shfl_down_sync(~0u, lane, 30u);
  EXPECT(down == (lane < 2 ? lane + 30 : lane));
  EXPECT(__shfl_sync(~0u, lane, 7) == 7);
  EXPECT(__shfl_xor_sync(~0u, lane, 5) == (lane ^ 5));
  EXPECT(__ballot_sync(~0u, lane % 2 == warp) ==
         (warp == 0 ? 0x55555555u : 0xaaaaaaaau));
  EXPECT(__reduce_max_sync(~0u, static_cast<unsigned>((lane * 7) % 32)) == 31);
  result[blockIdx.x * kThreads + threadIdx.x] += 1;
}

// Each block sums over its threads, by way of memory that they share.
void Sum(int* result) {
  __shared__ int of_warp[2];
  const int total = static_cast<int>(__reduce_max_sync(~0u, threadIdx.x));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x == 5) result[blockIdx.x] = of_warp[0] + of_warp[1];
}

void OneLaneIsMissing(int*) {
  if (threadIdx.x != 40) __ballot_sync(~0u, true);
}

void LanesAskForDifferentThings(int*) {
  if (threadIdx.x == 1) {
    __syncwarp();
  } else {
    __ballot_sync(~0u, true);
  }
}

void HalfOfTheBlockWaits(int*) {
  if (threadIdx.x < 32) __syncthreads();
}

void SomeLanesOnly(int*) { __shfl_sync(0xffffu, 1, 0); }

bool IsStopped(void (*kernel)(int*)) {
  const pid_t child = fork();
  if (child == 0) {
    std::fclose(stderr);  // What is said there is meant to be.
    Launch(1, kernel, nullptr);
    _exit(0);
  }
  int status = 0;
  EXPECT(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace
}  // namespace dreamjax

int main() {
  using namespace dreamjax;
  std::vector<int> visits(3 * kThreads), sums(3);
  Launch(3, Exchange, visits.data());
  for (const int count : visits) EXPECT(count == 1);
  Launch(3, Sum, sums.data());
  for (const int sum : sums) EXPECT(sum == 31 + 63);
  EXPECT(IsStopped(OneLaneIsMissing));
  EXPECT(IsStopped(LanesAskForDifferentThings));
  EXPECT(IsStopped(HalfOfTheBlockWaits));
  EXPECT(IsStopped(SomeLanesOnly));
}
