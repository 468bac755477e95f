// CUDA's runtime as far as the kernels use it, on a CPU: tests only.
//
// A block's threads are fibers of the calling thread. A fiber runs until it
// ends or waits for its warp or block, so what threads exchange is exact, and
// a warp whose lanes do not all come to the same exchange is reported instead
// of hanging. Blocks run one after another, threads in ascending order in every
// other block and in descending order in the rest. What this cannot show: races,
// what a GPU finds in memory that nobody wrote, and how fast anything is.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
// Of a block, and of all that run on this thread.
#define __shared__ thread_local
#define __CUDA_ARCH__ 900

using std::max;
using std::min;

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3() = default;
  constexpr dim3(unsigned x, unsigned y = 1) : x(x), y(y) {}
};

struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

constexpr int kWarp = 32;
constexpr size_t kStack = 64 * 1024;
constexpr size_t kShared = 227 * 1024;

[[noreturn]] inline void Fail(const char* problem) {
  std::fprintf(stderr, "CUDA on a CPU: %s (block %u, thread %u)\n", problem,
               blockIdx.x, threadIdx.x);
  std::abort();
}

// Where threads wait for each other, and what they then tell each other.
struct Meeting {
  int members = 0;
  int arrived = 0;
  unsigned round = 0;
  // What this round is about, so that different ones do not mix.
  const char* purpose = nullptr;
  // By the parity of the round: a slow reader still finds the last one's.
  unsigned char told[2][kWarp][16] = {};
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  bool done = true;
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting all;
  int current = 0;
  bool moved = false;
  const std::function<void()>* body = nullptr;
};

inline Block& ThisBlock() {
  static thread_local Block block;
  return block;
}

inline Meeting& ThisWarp() { return ThisBlock().warps[threadIdx.x / kWarp]; }

// Waits until all members have come; returns the round's parity.
inline int Meet(Meeting& meeting, const char* purpose) {
  Block& block = ThisBlock();
  const unsigned round = meeting.round;
  if (meeting.arrived == 0) {
    meeting.purpose = purpose;
  } else if (std::strcmp(meeting.purpose, purpose) != 0) {
    Fail("threads of a group wait for different things");
  }
  block.moved = true;
  if (++meeting.arrived == meeting.members) {
    meeting.arrived = 0;
    ++meeting.round;
  } else {
    while (meeting.round == round) {
      swapcontext(&block.fibers[block.current].context, &block.scheduler);
    }
  }
  return round % 2;
}

// Every lane's `value`, by lane; valid until this lane's next exchange.
template <class T>
const unsigned char (*Exchange(unsigned mask, T value,
                               const char* purpose))[16] {
  static_assert(sizeof(T) <= 16);
  if (mask != ~0u) Fail("only exchanges of a whole warp are known");
  Meeting& warp = ThisWarp();
  if (warp.members != kWarp) Fail("a warp is not whole");
  std::memcpy(warp.told[warp.round % 2][threadIdx.x % kWarp], &value,
              sizeof(T));
  return warp.told[Meet(warp, purpose)];
}

template <class T>
T Told(const unsigned char (*told)[16], int lane) {
  T value;
  std::memcpy(&value, told[lane], sizeof(T));
  return value;
}

inline void RunFiber() {
  Block& block = ThisBlock();
  (*block.body)();
  Fiber& fiber = block.fibers[block.current];
  fiber.done = true;
  block.moved = true;
  const int number = block.current;
  if (block.warps[number / kWarp].arrived > 0 || block.all.arrived > 0) {
    // Its group is waiting for it, and would for ever.
    Fail("a thread ends while others of its group wait");
  }
  --block.warps[number / kWarp].members;
  --block.all.members;
  swapcontext(&fiber.context, &block.scheduler);
}

inline void RunBlock(bool is_reversed, int threads,
                     const std::function<void()>& body) {
  Block& block = ThisBlock();
  block.body = &body;
  if (static_cast<int>(block.fibers.size()) < threads) {
    block.fibers.resize(threads);
  }
  block.warps.assign((threads + kWarp - 1) / kWarp, Meeting{});
  block.all = Meeting{};
  block.all.members = threads;
  for (int i = 0; i < threads; ++i) {
    ++block.warps[i / kWarp].members;
    Fiber& fiber = block.fibers[i];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, RunFiber, 0);
  }
  for (bool left = true; left;) {
    left = false;
    block.moved = false;
    for (int i = 0; i < threads; ++i) {
      block.current = is_reversed ? threads - 1 - i : i;
      Fiber& fiber = block.fibers[block.current];
      if (fiber.done) continue;
      threadIdx = dim3(static_cast<unsigned>(block.current));
      swapcontext(&block.scheduler, &fiber.context);
      left = left || !fiber.done;
    }
    if (left && !block.moved) Fail("threads wait for ever");
  }
}

}  // namespace cuda_on_cpu

// Exchanges.

inline void __syncthreads() {
  cuda_on_cpu::Meet(cuda_on_cpu::ThisBlock().all, "__syncthreads");
}

inline void __syncwarp() { cuda_on_cpu::Exchange(~0u, 0, "__syncwarp"); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  const auto told = cuda_on_cpu::Exchange(mask, value, "__shfl_sync");
  return cuda_on_cpu::Told<T>(told, lane % cuda_on_cpu::kWarp);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step) {
  const int lane = static_cast<int>(threadIdx.x % cuda_on_cpu::kWarp);
  const auto told = cuda_on_cpu::Exchange(mask, value, "__shfl_up_sync");
  const int from = lane - static_cast<int>(step);
  return from < 0 ? value : cuda_on_cpu::Told<T>(told, from);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step) {
  const int lane = static_cast<int>(threadIdx.x % cuda_on_cpu::kWarp);
  const auto told = cuda_on_cpu::Exchange(mask, value, "__shfl_down_sync");
  const int from = lane + static_cast<int>(step);
  return from >= cuda_on_cpu::kWarp ? value : cuda_on_cpu::Told<T>(told, from);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  const int lane = static_cast<int>(threadIdx.x % cuda_on_cpu::kWarp);
  const auto told = cuda_on_cpu::Exchange(mask, value, "__shfl_xor_sync");
  return cuda_on_cpu::Told<T>(told, lane ^ bits);
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  const auto told = cuda_on_cpu::Exchange(mask, vote, "__ballot_sync");
  unsigned bits = 0;
  for (int lane = 0; lane < cuda_on_cpu::kWarp; ++lane) {
    if (cuda_on_cpu::Told<bool>(told, lane)) bits |= 1u << lane;
  }
  return bits;
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  const auto told = cuda_on_cpu::Exchange(mask, value, "__reduce_max_sync");
  unsigned largest = 0;
  for (int lane = 0; lane < cuda_on_cpu::kWarp; ++lane) {
    largest = max(largest, cuda_on_cpu::Told<unsigned>(told, lane));
  }
  return largest;
}

// Arithmetic and memory.

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

template <class T>
T __ldg(const T* from) {
  return *from;
}

inline void atomicAdd(float* to, float x) { *to += x; }
inline void atomicAdd(float2* to, float2 v) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(v) != 0) {
    cuda_on_cpu::Fail("an address is not aligned");
  }
  *to = {to->x + v.x, to->y + v.y};
}
inline void atomicAdd(float4* to, float4 v) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(v) != 0) {
    cuda_on_cpu::Fail("an address is not aligned");
  }
  *to = {to->x + v.x, to->y + v.y, to->z + v.z, to->w + v.w};
}

// The host's side.

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                               void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  const int threads = static_cast<int>(config->blockDim.x);
  if (threads < 1 || threads > 1024 || config->gridDim.x < 1 ||
      config->gridDim.y < 1 || config->gridDim.y > 65535 ||
      config->dynamicSmemBytes > cuda_on_cpu::kShared) {
    return 1;
  }
  blockDim = config->blockDim;
  gridDim = config->gridDim;
  const std::function<void()> body = [&] { kernel(arguments...); };
  for (unsigned y = 0; y < config->gridDim.y; ++y) {
    for (unsigned x = 0; x < config->gridDim.x; ++x) {
      blockIdx = dim3(x, y);
      cuda_on_cpu::RunBlock(x % 2 == 1, threads, body);
    }
  }
  return cudaSuccess;
}

enum { cudaFuncAttributeMaxDynamicSharedMemorySize };

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int bytes) {
  return bytes > static_cast<int>(cuda_on_cpu::kShared);
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes,
                                   cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) { return "a wrong launch"; }
