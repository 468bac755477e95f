// Products of a warp on tensor cores, as far as the kernels use them: tests
// only. Each lane has a share of a fragment's numbers, and reads and stores
// that alone: who looks at a stored matrix before the warp has met again finds
// a part of it.
#pragma once

#include <type_traits>

#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
namespace precision {
struct tf32 {};
}  // namespace precision
enum layout_t { mem_row_major, mem_col_major };

// Rounded to 10 bits after the first, halves away from zero.
inline float __float_to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (std::isfinite(x)) bits += 0x1000u;
  bits &= ~0x1fffu;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

template <class Use, int m, int n, int k, class Type, class Layout = void>
struct fragment {
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? k : m;
  static constexpr int columns = std::is_same_v<Use, matrix_a> ? k : n;
  static constexpr int num_elements = rows * columns / cuda_on_cpu::kWarp;
  // So many numbers of the matrix, row by row, from this lane's first on.
  float x[num_elements];
  // Where in the matrix this lane's first number is.
  static int first() {
    return static_cast<int>(threadIdx.x) % cuda_on_cpu::kWarp * num_elements;
  }
};

// Calls use(number, place) for each number of a lane's share.
template <class Fragment, class Use>
void ForShare(Fragment& f, const float* matrix, unsigned stride,
              bool by_column, const char* purpose, Use use) {
  if (reinterpret_cast<uintptr_t>(matrix) % 32 != 0 || stride % 4 != 0) {
    cuda_on_cpu::Fail("a matrix is not aligned");
  }
  cuda_on_cpu::Exchange(~0u, 0, purpose);
  for (int e = 0; e < f.num_elements; ++e) {
    const unsigned i = (f.first() + e) / f.columns;
    const unsigned j = (f.first() + e) % f.columns;
    use(f.x[e], by_column ? j * stride + i : i * stride + j);
  }
}

template <class Fragment>
void LoadShare(Fragment& to, const float* from, unsigned stride,
               bool by_column) {
  ForShare(to, from, stride, by_column, "load_matrix_sync",
           [from](float& x, unsigned place) { x = from[place]; });
}

template <class Use, int m, int n, int k, class Layout>
void load_matrix_sync(fragment<Use, m, n, k, precision::tf32, Layout>& to,
                      const float* from, unsigned stride) {
  LoadShare(to, from, stride, std::is_same_v<Layout, col_major>);
}

template <int m, int n, int k>
void load_matrix_sync(fragment<accumulator, m, n, k, float>& to,
                      const float* from, unsigned stride, layout_t layout) {
  LoadShare(to, from, stride, layout == mem_col_major);
}

template <int m, int n, int k>
void store_matrix_sync(float* to,
                       const fragment<accumulator, m, n, k, float>& from,
                       unsigned stride, layout_t layout) {
  ForShare(from, to, stride, layout == mem_col_major, "store_matrix_sync",
           [to](float x, unsigned place) { to[place] = x; });
}

template <class Fragment>
void fill_fragment(Fragment& to, float value) {
  std::fill(to.x, to.x + to.num_elements, value);
}

// All numbers of a factor, row by row.
template <class Factor>
std::vector<float> Gather(const Factor& factor) {
  struct Share {
    float x[Factor::num_elements];
  } share;
  for (int e = 0; e < factor.num_elements; ++e) {
    share.x[e] = factor.x[e];
    if (std::isfinite(share.x[e]) && __float_to_tf32(share.x[e]) != share.x[e]) {
      cuda_on_cpu::Fail("a factor is no number of TF32");
    }
  }
  const auto told = cuda_on_cpu::Exchange(~0u, share, "mma_sync");
  std::vector<float> all(factor.rows * factor.columns);
  for (size_t i = 0; i < all.size(); ++i) {
    const int lane = static_cast<int>(i) / factor.num_elements;
    all[i] = cuda_on_cpu::Told<Share>(told, lane).x[i % factor.num_elements];
  }
  return all;
}

template <int m, int n, int k, class Left, class Right>
void mma_sync(fragment<accumulator, m, n, k, float>& to,
              const fragment<matrix_a, m, n, k, precision::tf32, Left>& a,
              const fragment<matrix_b, m, n, k, precision::tf32, Right>& b,
              const fragment<accumulator, m, n, k, float>& c) {
  const std::vector<float> left = Gather(a), right = Gather(b);
  for (int e = 0; e < to.num_elements; ++e) {
    const int row = (to.first() + e) / n, column = (to.first() + e) % n;
    float sum = c.x[e];
    for (int i = 0; i < k; ++i) {
      sum = std::fma(left[row * k + i], right[i * n + column], sum);
    }
    to.x[e] = sum;
  }
}

}  // namespace nvcuda::wmma
