// How work is run: the one file that knows a backend.
//
// Under g++ a loop over independent parts runs on a thread pool; under nvcc a
// functor runs once per index on a stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#define DJ_PRAGMA(text) _Pragma(#text)
#if defined(__CUDACC__) || defined(__clang__)
#define DJ_UNROLL(times) DJ_PRAGMA(unroll times)
#else
#define DJ_UNROLL(times) DJ_PRAGMA(GCC unroll times)
#endif

#ifdef __CUDACC__
#define DJ_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// Inlined always: only then does a DJ_CLONES caller compile it for its target.
#define DJ_HD inline __attribute__((always_inline))
#else
#define DJ_HD inline
#endif

// Compiled for several instruction sets; the best is chosen when the module is
// loaded. Floating-point contraction is off, so all give the same bits. Not
// under ThreadSanitizer: the loader would choose before it has started.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && \
    !defined(__CUDACC__) && !defined(__SANITIZE_THREAD__)
#define DJ_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DJ_CLONES
#endif

namespace dreamjax {

// Calls run(part) once for each part in [0, num_parts).
//
// Parts are claimed from a counter and the caller claims too, so a pool whose
// threads are all busy (or are waiting for this very call) cannot make it
// wait for work that nobody has begun. A helper that starts after the last
// part touches only the state that it shares.
//
// Pool: num_threads(), and Schedule(function) that may run it at any time.
template <class Pool, class Run>
void ParallelFor(Pool& pool, int64_t num_parts, Run run) {
  struct State {
    State(int64_t num_parts, Run run) : num_parts(num_parts), run(run) {}
    void Work() {
      for (int64_t part; (part = next.fetch_add(1)) < num_parts;) {
        run(part);
        done.fetch_add(1);
      }
    }
    const int64_t num_parts;
    const Run run;
    std::atomic<int64_t> next{0}, done{0};
  };
  if (num_parts <= 0) return;
  auto state = std::make_shared<State>(num_parts, std::move(run));
  const int64_t num_threads = pool.num_threads();
  for (int64_t i = 1; i < num_threads && i < num_parts; ++i) {
    pool.Schedule(std::function<void()>([state] { state->Work(); }));
  }
  state->Work();
  while (state->done.load() < num_parts) std::this_thread::yield();
}

#ifdef __CUDACC__
// Blocks of a launch, and `bytes` of shared memory for each.
struct Blocks {
  int64_t count;
  int threads;
  int layers = 1;
  int bytes = 0;
};

// Queues a kernel; blockIdx.y counts layers.
template <class... Parameters, class... Arguments>
cudaError_t LaunchBlocks(cudaStream_t stream, const Blocks& blocks,
                         void (*kernel)(Parameters...),
                         const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks.count),
                        static_cast<unsigned>(blocks.layers));
  config.blockDim = dim3(static_cast<unsigned>(blocks.threads));
  config.dynamicSmemBytes = static_cast<size_t>(blocks.bytes);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Lanes of a warp, and a bit for each.
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = ~0u;

template <class F>
__global__ void Apply(int64_t n, F f) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += stride) {
    f(i);
  }
}

template <class F>
__global__ void ApplyWarps(int64_t n, F f) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x / kWarp;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = thread / kWarp; i < n; i += stride) {
    f(i, static_cast<int>(threadIdx.x % kWarp));
  }
}

// Queues a kernel that strides over n parts of `threads` threads.
template <class F>
cudaError_t LaunchStrides(cudaStream_t stream, int64_t n, int threads,
                          int layers, void (*kernel)(int64_t, F), const F& f) {
  constexpr int kBlock = 128;
  constexpr int64_t kMaxBlocks = int64_t{1} << 20;
  if (n <= 0) return cudaSuccess;
  const int parts = kBlock / threads;
  const int64_t blocks = (n + parts - 1) / parts;
  return LaunchBlocks(
      stream, {blocks < kMaxBlocks ? blocks : kMaxBlocks, kBlock, layers},
      kernel, n, f);
}

// Calls f(i) once for each i in [0, n) and layer, neighbours on neighbouring
// lanes. A layer costs no division.
template <class F>
cudaError_t ForEach(cudaStream_t stream, int64_t n, const F& f,
                    int layers = 1) {
  return LaunchStrides(stream, n, 1, layers, Apply<F>, f);
}

// Calls f(i, lane) on all lanes of a warp, for each i in [0, n) and layer.
template <class F>
cudaError_t ForEachWarp(cudaStream_t stream, int64_t n, const F& f,
                        int layers = 1) {
  return LaunchStrides(stream, n, kWarp, layers, ApplyWarps<F>, f);
}

// Looks at every slot: how many are used is known on the device alone.
template <class Call, class Clear>
struct IfFree {
  Call call;
  Clear clear;
  DJ_HD void operator()(int64_t i) const {
    if (i % call.num_slots >= NumUsed(call, i / call.num_slots)) clear(i);
  }
};

// Calls clear(i) for each slot that no ray owns; i counts those of all batches.
template <class Call, class Clear>
cudaError_t ForEachFree(cudaStream_t stream, const Call& call,
                        const Clear& clear) {
  return ForEach(stream, call.num_batches * call.num_slots,
                 IfFree<Call, Clear>{call, clear});
}

inline const char* Explain(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
#endif  // __CUDACC__

}  // namespace dreamjax
