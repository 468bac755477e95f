// Encoding and network in one pass: instruction sets and threads agree.

#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu.h"
#include "hash_mlp.h"
#include "testing.h"

namespace dreamjax {
namespace {

constexpr int64_t kNumPoints = 3001;

// A dense level and a hashed one, 4 or 8 features, 2 batches.
struct Numbers {
  explicit Numbers(int features) {
    h.grid.num_levels = 2;
    h.grid.num_features = features;
    h.grid.smoothstep = true;
    h.grid.level[0] = {4.0f, 5, 128, 0, true};
    h.grid.level[1] = {20.0f, 21, 256, 128, false};
    h.grid.num_entries = 384;
    Mlp& m = h.mlp;
    m.num_matrices = 2;
    m.size[0] = 2 * features;
    m.size[1] = 16;
    m.size[2] = 3;
    m.num_batches = 2;
    m.num_points = kNumPoints;
    m.num_parts = 3;
    table = Uniform(2 * 384 * features, -1.0f, 1.0f);
    weight = Uniform(2 * NumWeights(m), -1.0f, 1.0f);
    position = Uniform(2 * kNumPoints * 3, -0.1f, 1.1f);
    cotangent = Uniform(2 * kNumPoints * 3, -1.0f, 1.0f);
    slope_cotangent = Uniform(2 * kNumPoints * 3, -1.0f, 1.0f);
    m.weight = weight.data();
    h.table = table.data();
    h.position = position.data();
    h.count = count;
    h.cotangent = cotangent.data();
    h.slope_cotangent = slope_cotangent.data();
  }

  // All results, where each(call) runs a call.
  template <class Each>
  std::vector<float> Results(Each each) const {
    HashMlp h = this->h;
    const int64_t points = 2 * kNumPoints;
    std::vector<float> output(3 * points), slope(3 * points),
        pull(2 * points * Inputs(h.mlp)), gradient(table.size()),
        partial(2 * 3 * NumWeights(h.mlp));
    h.mlp.partial = partial.data();
    HashMlpValue value;
    static_cast<HashMlp&>(value) = h;
    value.output = output.data();
    value.slope = slope.data();
    each(value);
    HashMlpPull back;
    static_cast<HashMlp&>(back) = h;
    back.pull = pull.data();
    each(back);
    HashMlpScatter scatter;
    static_cast<HashMlp&>(scatter) = h;
    scatter.pull = pull.data();
    scatter.table_gradient = gradient.data();
    each(scatter);
    std::vector<float> all = output;
    for (const auto& part : {slope, pull, gradient, partial}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }

  HashMlp h;
  // What is beyond the points is not there; of the last block a part is used.
  int32_t count[2] = {kNumPoints + 7, 2000};
  std::vector<float> table, weight, position, cotangent, slope_cotangent;
};

void ThreadsDoNotChangeABit(const Numbers& n) {
  ExpectSameOnEveryPool([&n](auto& pool) {
    return n.Results([&pool](const auto& call) { Run(pool, call); });
  });
}

void InstructionSetsAgree(const Numbers& n) {
  const VectorUnit best = BestVectorUnit();
  std::vector<float> plain;
  for (const VectorUnit unit :
       {VectorUnit::kPlain, VectorUnit::kAvx2, VectorUnit::kAvx512}) {
    if (unit > best) continue;
    const auto all = n.Results([unit](const auto& call) {
      for (int64_t part = 0; part < NumParts(call); ++part) {
        RunPart(call, part, unit);
      }
    });
    if (plain.empty()) plain = all;
    for (size_t i = 0; i < all.size(); ++i) {
      // Slopes are near 1e2, sums of 3000 terms near 1e3.
      EXPECT(std::fabs(all[i] - plain[i]) <=
             1e-3f + 1e-4f * std::fabs(plain[i]));
    }
  }
}

}  // namespace
}  // namespace dreamjax

int main() {
  for (const int features : {4, 8}) {
    dreamjax::Numbers numbers(features);
    dreamjax::ThreadsDoNotChangeABit(numbers);
    dreamjax::InstructionSetsAgree(numbers);
  }
}
