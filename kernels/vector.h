// Blocks of points in vector registers, on a CPU; for one source file, which
// gets its code compiled for each instruction set by for_each_unit.h.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DJ_HAS_X86_VECTORS
#include <immintrin.h>
#endif

#define DJ_VECTOR inline __attribute__((always_inline))

namespace dreamjax {
namespace {

// Of a block. Columns of a power of two would share a few lines of the cache.
constexpr int kPoints = 96;
constexpr int kLineFloats = 16;

struct alignas(64) Line {
  float at[kLineFloats];
};

typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIntegers __attribute__((vector_size(16)));
// The same without an alignment.
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4)));

}  // namespace
}  // namespace dreamjax
