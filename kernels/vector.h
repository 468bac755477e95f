// Blocks of points in vector registers, on a CPU; for one source file, which
// gets its code compiled for each instruction set by for_each_unit.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DJ_HAS_X86_VECTORS
#include <immintrin.h>
#endif

#define DJ_VECTOR inline __attribute__((always_inline))

namespace dreamjax {
namespace {

constexpr int kPoints = 128;
constexpr int kLineFloats = 16;

struct alignas(64) Line {
  float at[kLineFloats];
};

typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIntegers __attribute__((vector_size(16)));
// The same without an alignment.
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4)));

// Four rows of four numbers become four columns.
DJ_VECTOR void Transpose(Four row[4]) {
  const Four a = __builtin_shuffle(row[0], row[1], FourIntegers{0, 4, 1, 5});
  const Four b = __builtin_shuffle(row[2], row[3], FourIntegers{0, 4, 1, 5});
  const Four c = __builtin_shuffle(row[0], row[1], FourIntegers{2, 6, 3, 7});
  const Four d = __builtin_shuffle(row[2], row[3], FourIntegers{2, 6, 3, 7});
  row[0] = __builtin_shuffle(a, b, FourIntegers{0, 1, 4, 5});
  row[1] = __builtin_shuffle(a, b, FourIntegers{2, 3, 6, 7});
  row[2] = __builtin_shuffle(c, d, FourIntegers{0, 1, 4, 5});
  row[3] = __builtin_shuffle(c, d, FourIntegers{2, 3, 6, 7});
}

// to[width, kPoints] = the transpose of `count` rows of `from`, then zeros.
void LoadRows(const float* from, int width, int64_t first, int count,
              float* to) {
  from += first * width;
  int p = 0;
  for (; p + 4 <= count; p += 4) {
    int k = 0;
    for (; k + 4 <= width; k += 4) {
      Four row[4];
      for (int i = 0; i < 4; ++i) {
        row[i] = *reinterpret_cast<const FourAnywhere*>(
            from + (p + i) * int64_t{width} + k);
      }
      Transpose(row);
      for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<Four*>(to + (k + i) * kPoints + p) = row[i];
      }
    }
    for (; k < width; ++k) {
      for (int i = 0; i < 4; ++i) {
        to[k * kPoints + p + i] = from[(p + i) * int64_t{width} + k];
      }
    }
  }
  if (p == kPoints) return;
  for (int k = 0; k < width; ++k) {
    for (int i = p; i < kPoints; ++i) {
      to[k * kPoints + i] = i < count ? from[i * int64_t{width} + k] : 0.0f;
    }
  }
}

// The first `count` columns of `from` become rows of `to`.
void StoreRows(const float* from, int width, int64_t first, int count,
               float* to) {
  to += first * width;
  int p = 0;
  for (; p + 4 <= count; p += 4) {
    int k = 0;
    for (; k + 4 <= width; k += 4) {
      Four row[4];
      for (int i = 0; i < 4; ++i) {
        row[i] = *reinterpret_cast<const Four*>(from + (k + i) * kPoints + p);
      }
      Transpose(row);
      for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<FourAnywhere*>(to + (p + i) * int64_t{width} + k) =
            row[i];
      }
    }
    for (; k < width; ++k) {
      for (int i = 0; i < 4; ++i) {
        to[(p + i) * int64_t{width} + k] = from[k * kPoints + p + i];
      }
    }
  }
  for (; p < count; ++p) {
    for (int k = 0; k < width; ++k) {
      to[p * int64_t{width} + k] = from[k * kPoints + p];
    }
  }
}

}  // namespace
}  // namespace dreamjax
