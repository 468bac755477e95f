// What stands for CUDA on a CPU: threads tell each other what they should, and
// a kernel that a GPU would hang on, or answer wrongly, is stopped.

#include "cuda_on_cpu/cuda_runtime.h"
#include "cuda_on_cpu/mma.h"

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

namespace wmma = nvcuda::wmma;

template <class Use, class Layout>
using Factor = wmma::fragment<Use, 16, 16, 8, wmma::precision::tf32, Layout>;

// Each warp multiplies 16 x 8 by 8 x 16 numbers, the second ones transposed.
void Multiply(int* result) {
  alignas(32) __shared__ float left[16 * 8], right[16 * 8], product[2][16 * 24];
  for (int i = threadIdx.x; i < 16 * 8; i += kThreads) {
    left[i] = static_cast<float>(i % 7 - 3);
    right[i] = static_cast<float>(i % 5 - 2);
  }
  __syncthreads();
  Factor<wmma::matrix_a, wmma::row_major> a;
  Factor<wmma::matrix_b, wmma::col_major> b;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sum;
  wmma::load_matrix_sync(a, left, 8);
  wmma::load_matrix_sync(b, right, 8);
  wmma::fill_fragment(sum, 1.0f);
  wmma::mma_sync(sum, a, b, sum);
  float* to = product[threadIdx.x / 32];
  wmma::store_matrix_sync(to, sum, 24, wmma::mem_col_major);
  __syncwarp();
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      float expected = 1.0f;
      for (int k = 0; k < 8; ++k) expected += left[i * 8 + k] * right[j * 8 + k];
      EXPECT(to[j * 24 + i] == expected);
    }
  }
  result[blockIdx.x * kThreads + threadIdx.x] += 1;
}

void AFactorIsNotRounded(int*) {
  Factor<wmma::matrix_a, wmma::row_major> a;
  Factor<wmma::matrix_b, wmma::row_major> b;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sum;
  wmma::fill_fragment(a, 1.0f);
  wmma::fill_fragment(b, 1.0001f);
  wmma::fill_fragment(sum, 0.0f);
  wmma::mma_sync(sum, a, b, sum);
}

void AMatrixIsNotAligned(int*) {
  alignas(32) __shared__ float matrix[16 * 16 + 4];
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sum;
  wmma::load_matrix_sync(sum, matrix + 4, 16, wmma::mem_row_major);
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
  Launch(3, Multiply, visits.data());
  for (const int count : visits) EXPECT(count == 2);
  EXPECT(wmma::__float_to_tf32(1.0f + 0x1p-11f) == 1.0f + 0x1p-10f);
  EXPECT(wmma::__float_to_tf32(-1.0f - 0x1p-12f) == -1.0f);
  Launch(3, Sum, sums.data());
  for (const int sum : sums) EXPECT(sum == 31 + 63);
  EXPECT(IsStopped(OneLaneIsMissing));
  EXPECT(IsStopped(LanesAskForDifferentThings));
  EXPECT(IsStopped(HalfOfTheBlockWaits));
  EXPECT(IsStopped(SomeLanesOnly));
  EXPECT(IsStopped(AFactorIsNotRounded));
  EXPECT(IsStopped(AMatrixIsNotAligned));
}
