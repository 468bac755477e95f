// The network: every instruction set against a loop, and threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu.h"
#include "mlp.h"
#include "testing.h"

namespace dreamjax {
namespace {

// Numbers for a call of 2 batches, and places for its results.
struct Numbers {
  Numbers(const std::vector<int>& size, int64_t num_points, int64_t num_parts) {
    call.num_matrices = static_cast<int>(size.size()) - 1;
    std::copy(size.begin(), size.end(), call.size);
    call.num_batches = 2;
    call.num_points = num_points;
    call.num_parts = num_parts;
    const int64_t points = 2 * num_points;
    weight = Uniform(2 * NumWeights(call), -1.0f, 1.0f);
    input = Uniform(points * Inputs(call), -1.0f, 1.0f);
    cotangent = Uniform(points * Outputs(call), -1.0f, 1.0f);
    direction = Uniform(points * Inputs(call), -1.0f, 1.0f);
    call.weight = weight.data();
    call.input = input.data();
    call.cotangent = cotangent.data();
    call.direction = direction.data();
  }

  // The result and then the partial sums, where each(call) runs a call.
  template <class Call, class Each>
  std::vector<float> Results(int width, bool with_sum, Each each) const {
    std::vector<float> result(2 * call.num_points * width);
    std::vector<float> partial(2 * call.num_parts * NumWeights(call));
    Call copy;
    static_cast<Mlp&>(copy) = call;
    copy.result = result.data();
    copy.partial = with_sum ? partial.data() : nullptr;
    each(copy);
    if (with_sum) result.insert(result.end(), partial.begin(), partial.end());
    return result;
  }

  Mlp call;
  std::vector<float> weight, input, cotangent, direction;
};

void Near(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT(a.size() == b.size());
  float largest = 0.0f;
  for (const float x : b) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT(std::fabs(a[i] - b[i]) <= 1e-5f * largest);
  }
}

std::vector<VectorUnit> Units() {
  std::vector<VectorUnit> units = {VectorUnit::kPlain};
  const VectorUnit best = BestVectorUnit();
  if (best != VectorUnit::kPlain) units.push_back(VectorUnit::kAvx2);
  if (best == VectorUnit::kAvx512) units.push_back(VectorUnit::kAvx512);
  return units;
}

void OutputsAreThoseOfALoop() {
  for (const int64_t num_points : {1, 127, 128, 129, 3000}) {
    Numbers n({6, 16, 9, 3}, num_points, 1);
    std::vector<float> expected;
    for (int64_t i = 0; i < 2 * num_points; ++i) {
      const float* weight =
          n.weight.data() + i / num_points * NumWeights(n.call);
      std::vector<float> x(&n.input[i * 6], &n.input[i * 6] + 6);
      for (int l = 0; l < 3; ++l) {
        std::vector<float> z(n.call.size[l + 1], 0.0f);
        for (size_t j = 0; j < z.size(); ++j) {
          for (size_t k = 0; k < x.size(); ++k) {
            z[j] += (l == 0 ? x[k] : std::max(x[k], 0.0f)) *
                    weight[MatrixAt(n.call, l) + k * z.size() + j];
          }
        }
        x = z;
      }
      expected.insert(expected.end(), x.begin(), x.end());
    }
    for (const VectorUnit unit : Units()) {
      Near(n.Results<MlpValue>(3, false, [unit](const MlpValue& call) {
        for (int64_t p = 0; p < NumParts(call); ++p) RunPart(call, p, unit);
      }), expected);
    }
  }
}

template <class Call>
void UnitsAgree(const Numbers& n, int width, bool with_sum) {
  std::vector<float> plain;
  for (const VectorUnit unit : Units()) {
    const auto result =
        n.Results<Call>(width, with_sum, [unit](const Call& call) {
          for (int64_t p = 0; p < NumParts(call); ++p) RunPart(call, p, unit);
        });
    if (plain.empty()) plain = result;
    Near(result, plain);
  }
}

template <class Call>
void ThreadsDoNotChange(const Numbers& n, int width, bool with_sum) {
  ExpectSameOnEveryPool([&](auto& pool) {
    return n.Results<Call>(width, with_sum,
                           [&pool](const Call& call) { Run(pool, call); });
  });
}

void InstructionSetsAndThreadsAgree(const std::vector<int>& size,
                                    int64_t num_points, int64_t num_parts) {
  Numbers n(size, num_points, num_parts);
  UnitsAgree<MlpInputGradient>(n, size.front(), false);
  UnitsAgree<MlpGradient>(n, size.front(), true);
  UnitsAgree<MlpSecond>(n, size.back(), true);
  ThreadsDoNotChange<MlpValue>(n, size.back(), false);
  ThreadsDoNotChange<MlpInputGradient>(n, size.front(), false);
  ThreadsDoNotChange<MlpGradient>(n, size.front(), true);
  ThreadsDoNotChange<MlpSecond>(n, size.back(), true);
}

}  // namespace
}  // namespace dreamjax

int main() {
  dreamjax::OutputsAreThoseOfALoop();
  for (const int64_t num_parts : {1, 3, 40}) {
    dreamjax::InstructionSetsAndThreadsAgree({10, 32, 16, 4}, 2500, num_parts);
  }
  for (const int64_t num_points : {0, 1, 129}) {
    dreamjax::InstructionSetsAndThreadsAgree({5, 7, 11, 3}, num_points, 2);
  }
}
