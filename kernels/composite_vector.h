// Four samples of a ray at a time, for composite_cpu.cc. Every processor has
// vectors of this width, so all give the same bits.
#pragma once

#include <cstdint>

#include "core.h"
#include "vector.h"

// Of a lambda, as DJ_HD of a function.
#define DJ_INLINED __attribute__((always_inline))

namespace dreamjax {
namespace {

constexpr int kFour = 4;
constexpr FourIntegers kLane = {0, 1, 2, 3};

// The first `count` of four numbers, or all, then zeros.
DJ_HD Four Read(const float* from, int64_t count) {
  if (count >= kFour) return *reinterpret_cast<const FourAnywhere*>(from);
  float numbers[kFour] = {};
  for (int i = 0; i < count; ++i) numbers[i] = from[i];
  return *reinterpret_cast<const FourAnywhere*>(numbers);
}

DJ_HD void Write(const Four& x, int64_t count, float* to) {
  if (count >= kFour) {
    *reinterpret_cast<FourAnywhere*>(to) = x;
    return;
  }
  float numbers[kFour];
  *reinterpret_cast<FourAnywhere*>(numbers) = x;
  for (int i = 0; i < count; ++i) to[i] = numbers[i];
}

// Calls use(s, count) for every fourth slot, front to back or back to front.
// `use` is inlined twice, once for a count that is known to be four.
template <class Use>
DJ_HD void ForFours(int64_t begin, int64_t end, const Use& use) {
  int64_t s = begin;
  for (; s + kFour <= end; s += kFour) use(s, kFour);
  if (s < end) use(s, end - s);
}
template <class Use>
DJ_HD void ForFoursBackwards(int64_t begin, int64_t end, const Use& use) {
  const int64_t rest = (end - begin) % kFour;
  int64_t s = end - rest;
  if (rest > 0) use(s, rest);
  while (s > begin) use(s -= kFour, kFour);
}

// Lanes moved up, others in their places.
template <int n>
DJ_HD Four Up(const Four& x, const Four& fill) {
  constexpr FourIntegers kFrom = {n > 0 ? 0 : 4, n > 1 ? 1 : 5 - n,
                                  n > 2 ? 2 : 6 - n, 7 - n};
  return __builtin_shuffle(fill, x, kFrom);
}

// Lanes moved down, zeros in their places.
template <int n>
DJ_HD Four Down(const Four& x) {
  constexpr FourIntegers kFrom = {n, n + 1, n + 2, n + 3};
  return __builtin_shuffle(x, Four{}, kFrom);
}

// Light at four samples.
struct Passage {
  Four weight;  // absorbed there
  Four after;   // left behind each
};

// `left` is the light that reaches the first, then what leaves the last.
DJ_HD Passage Pass(const Four& alpha, float& left) {
  const Four one = Four{} + 1.0f;
  Four through = one - alpha;
  through *= Up<1>(through, one);
  through *= Up<2>(through, one);
  const Passage p = {left * Up<1>(through, one) * alpha, left * through};
  left = p.after[kFour - 1];
  return p;
}

// Sums over all samples behind each, of which `behind` is that over those
// behind the last; then it is that over all.
DJ_HD Four SumBehind(const Four& x, float& behind) {
  Four sum = x + Down<1>(x);
  sum += Down<2>(sum);
  const Four result = behind + Down<1>(sum);
  behind += sum[0];
  return result;
}

// Three channels of four samples are twelve numbers, in three vectors.

// The sample of each number of vector j.
template <int j>
DJ_HD Four Repeat(const Four& sample) {
  constexpr FourIntegers kFrom = {4 * j / 3, (4 * j + 1) / 3, (4 * j + 2) / 3,
                                  (4 * j + 3) / 3};
  return __builtin_shuffle(sample, kFrom);
}

// The channel of each number of vector j.
template <int j>
DJ_HD Four Cycle(const float channel[3]) {
  return Four{channel[4 * j % 3], channel[(4 * j + 1) % 3],
              channel[(4 * j + 2) % 3], channel[(4 * j + 3) % 3]};
}

// A channel of all samples. Number 3 i + c lies in another lane for each i.
template <int c>
DJ_HD Four Channel(const Four x[3]) {
  // Where lane l of the vectors holds sample 3 (l - c) mod 4.
  constexpr auto from = [](int l) {
    return ((3 * (l + 4 - c)) % 4 * 3 + c) / 4;
  };
  constexpr FourIntegers kSecond = {from(0) > 0 ? 4 : 0, from(1) > 0 ? 5 : 1,
                                    from(2) > 0 ? 6 : 2, from(3) > 0 ? 7 : 3};
  constexpr FourIntegers kThird = {from(0) > 1 ? 4 : 0, from(1) > 1 ? 5 : 1,
                                   from(2) > 1 ? 6 : 2, from(3) > 1 ? 7 : 3};
  constexpr FourIntegers kOrder = {c % 4, (3 + c) % 4, (6 + c) % 4,
                                   (9 + c) % 4};
  const Four mixed = __builtin_shuffle(
      __builtin_shuffle(x[0], x[1], kSecond), x[2], kThird);
  return __builtin_shuffle(mixed, kOrder);
}

// The sum of a ray's values, and the gradients of these. Values and gradients
// are given from the first of four samples on, of which `count` exist. Three
// channels, as colours and normals have:
class ThreeChannels {
 public:
  DJ_HD ThreeChannels(int64_t, float* result) : result_(result) {}
  DJ_HD void Add(const Four& weight, const float* value, int64_t count) {
    sum_[0] += Repeat<0>(weight) * Read(value, 3 * count);
    sum_[1] += Repeat<1>(weight) * Read(value + 4, 3 * count - 4);
    sum_[2] += Repeat<2>(weight) * Read(value + 8, 3 * count - 8);
  }
  DJ_HD void Finish() const {
    for (int c = 0; c < 3; ++c) {
      float total = 0.0f;
      for (int i = c; i < 12; i += 3) total += sum_[i / 4][i % 4];
      result_[c] = total;
    }
  }

  class Gradients {
   public:
    DJ_HD Gradients(int64_t, const float* g)
        : g_{g[0], g[1], g[2]}, cycle_{Cycle<0>(g), Cycle<1>(g), Cycle<2>(g)} {}
    // dL/dweight through the sum.
    DJ_HD Four Score(const float* value, int64_t count) const {
      const Four x[3] = {Read(value, 3 * count),
                         Read(value + 4, 3 * count - 4),
                         Read(value + 8, 3 * count - 8)};
      return g_[0] * Channel<0>(x) + g_[1] * Channel<1>(x) +
             g_[2] * Channel<2>(x);
    }
    DJ_HD void Store(const Four& weight, int64_t count, float* g_value) const {
      Write(Repeat<0>(weight) * cycle_[0], 3 * count, g_value);
      Write(Repeat<1>(weight) * cycle_[1], 3 * count - 4, g_value + 4);
      Write(Repeat<2>(weight) * cycle_[2], 3 * count - 8, g_value + 8);
    }

   private:
    const float g_[3];
    const Four cycle_[3];
  };

 private:
  float* result_;
  Four sum_[3] = {};
};

// Any number of channels, or kChannels, whose sums stay in registers.
template <int kChannels>
class AnyChannels {
 public:
  DJ_HD AnyChannels(int64_t channels, float* result)
      : channels_(kChannels > 0 ? kChannels : channels), result_(result) {
    if (kChannels > 0) return;
    for (int64_t k = 0; k < channels; ++k) result[k] = 0.0f;
  }
  DJ_HD void Add(const Four& weight, const float* value, int64_t count) {
    float* sum = kChannels > 0 ? near_ : result_;
    for (int i = 0; i < count; ++i, value += channels_) {
      for (int64_t k = 0; k < channels_; ++k) sum[k] += weight[i] * value[k];
    }
  }
  DJ_HD void Finish() const {
    for (int k = 0; k < kChannels; ++k) result_[k] = near_[k];
  }

  class Gradients {
   public:
    DJ_HD Gradients(int64_t channels, const float* g)
        : channels_(kChannels > 0 ? kChannels : channels), g_(g) {}
    DJ_HD Four Score(const float* value, int64_t count) const {
      Four score = {};
      for (int i = 0; i < count; ++i, value += channels_) {
        for (int64_t k = 0; k < channels_; ++k) score[i] += g_[k] * value[k];
      }
      return score;
    }
    DJ_HD void Store(const Four& weight, int64_t count, float* g_value) const {
      for (int i = 0; i < count; ++i, g_value += channels_) {
        for (int64_t k = 0; k < channels_; ++k) g_value[k] = weight[i] * g_[k];
      }
    }

   private:
    const int64_t channels_;
    const float* g_;
  };

 private:
  const int64_t channels_;
  float* result_;
  float near_[kChannels > 0 ? kChannels : 1] = {};
};

}  // namespace
}  // namespace dreamjax
