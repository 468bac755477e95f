// Includes DJ_UNIT_BODY once for each instruction set, inside a namespace.
//
// It is given
//   Vector  a GCC vector of floats
//   Four    its 128-bit parts
//   kTile   rows of weights whose sums registers can keep
//   Fma     a b + c
// and, on each 128-bit part by itself,
//   Low, High, LowPair, HighPair   the shuffles that transpose four Vectors
//   Spread<i>         its float i in all four places
// and, for parts that lie apart,
//   Join    a Vector of the parts at from + at[4 g]
//   Part    part g of a Vector.

#define DJ_SHUFFLES(low, high, low_pair, high_pair, permute)                 \
  DJ_VECTOR Vector Low(const Vector& a, const Vector& b) { return low; }     \
  DJ_VECTOR Vector High(const Vector& a, const Vector& b) { return high; }   \
  DJ_VECTOR Vector LowPair(const Vector& a, const Vector& b) {               \
    return low_pair;                                                         \
  }                                                                          \
  DJ_VECTOR Vector HighPair(const Vector& a, const Vector& b) {              \
    return high_pair;                                                        \
  }                                                                          \
  template <int i>                                                           \
  DJ_VECTOR Vector Spread(const Vector& a) {                                 \
    return permute;                                                          \
  }

namespace dreamjax {
namespace {

namespace plain {
typedef float Vector __attribute__((vector_size(16)));
constexpr int kTile = 4;
DJ_VECTOR Vector Fma(const Vector& a, const Vector& b, const Vector& c) {
  return a * b + c;
}
DJ_SHUFFLES(__builtin_shuffle(a, b, FourIntegers{0, 4, 1, 5}),
            __builtin_shuffle(a, b, FourIntegers{2, 6, 3, 7}),
            __builtin_shuffle(a, b, FourIntegers{0, 1, 4, 5}),
            __builtin_shuffle(a, b, FourIntegers{2, 3, 6, 7}),
            __builtin_shuffle(a, FourIntegers{i, i, i, i}))
DJ_VECTOR Vector Join(const float* from, const int32_t* at, int64_t stride) {
  return *reinterpret_cast<const FourAnywhere*>(from + at[0] * stride);
}
template <int g>
DJ_VECTOR Four Part(const Vector& a) {
  return a;
}
#include DJ_UNIT_BODY
}  // namespace plain

#ifdef DJ_HAS_X86_VECTORS
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
typedef float Vector __attribute__((vector_size(32)));
constexpr int kTile = 4;
DJ_VECTOR Vector Fma(const Vector& a, const Vector& b, const Vector& c) {
  return _mm256_fmadd_ps(a, b, c);
}
DJ_SHUFFLES(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b),
            _mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee),
            _mm256_permute_ps(a, 0x55 * i))
DJ_VECTOR Vector Join(const float* from, const int32_t* at, int64_t stride) {
  const __m256 first =
      _mm256_castps128_ps256(_mm_loadu_ps(from + at[0] * stride));
  return _mm256_insertf128_ps(first, _mm_loadu_ps(from + at[4] * stride), 1);
}
template <int g>
DJ_VECTOR Four Part(const Vector& a) {
  return _mm256_extractf128_ps(a, g);
}
#include DJ_UNIT_BODY
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
namespace avx512 {
// Masks that mask nothing: GCC 12 warns of the intrinsics without.
typedef float Vector __attribute__((vector_size(64)));
constexpr int kTile = 8;
DJ_VECTOR Vector Fma(const Vector& a, const Vector& b, const Vector& c) {
  return _mm512_fmadd_ps(a, b, c);
}
DJ_SHUFFLES(_mm512_maskz_unpacklo_ps(-1, a, b),
            _mm512_maskz_unpackhi_ps(-1, a, b),
            _mm512_maskz_shuffle_ps(-1, a, b, 0x44),
            _mm512_maskz_shuffle_ps(-1, a, b, 0xee),
            _mm512_maskz_permute_ps(-1, a, 0x55 * i))
DJ_VECTOR Vector Join(const float* from, const int32_t* at, int64_t stride) {
  __m512 all = _mm512_castps128_ps512(_mm_loadu_ps(from + at[0] * stride));
  all = _mm512_maskz_insertf32x4(
      -1, all, _mm_loadu_ps(from + at[4] * stride), 1);
  all = _mm512_maskz_insertf32x4(
      -1, all, _mm_loadu_ps(from + at[8] * stride), 2);
  return _mm512_maskz_insertf32x4(
      -1, all, _mm_loadu_ps(from + at[12] * stride), 3);
}
template <int g>
DJ_VECTOR Four Part(const Vector& a) {
  return _mm512_maskz_extractf32x4_ps(-1, a, g);
}
#include DJ_UNIT_BODY
}  // namespace avx512
#pragma GCC pop_options
#endif  // DJ_HAS_X86_VECTORS

}  // namespace
}  // namespace dreamjax

#undef DJ_SHUFFLES

// The function of a name in the namespace of a VectorUnit.
#ifdef DJ_HAS_X86_VECTORS
#define DJ_ON_UNIT(unit, ...)                                           \
  ((unit) == VectorUnit::kAvx512                                        \
       ? avx512::__VA_ARGS__                                            \
       : (unit) == VectorUnit::kAvx2 ? avx2::__VA_ARGS__ : plain::__VA_ARGS__)
#else
#define DJ_ON_UNIT(unit, ...) plain::__VA_ARGS__
#endif
