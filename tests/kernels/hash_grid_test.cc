// The hash grid's arithmetic for one point, and its loops over many.

#include "hash_grid.h"

#include <cmath>
#include <limits>
#include <vector>

#include "cpu.h"
#include "testing.h"

namespace dreamjax {
namespace {

constexpr Level kDense = {15.0f, 16, 4096, 0, true};
constexpr Level kHashed = {99.0f, 100, 1024, 4096, false};

HashGrid TwoLevels(bool smoothstep) {
  HashGrid grid = {2, 2, 4096 + 1024, smoothstep, {}};
  grid.level[0] = kDense;
  grid.level[1] = kHashed;
  return grid;
}

template <bool kIsDense>
void NoPointLeavesTheTable(const Level& level) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> places = Uniform(3000, -0.5f, 1.5f);
  for (const float odd : {0.0f, 1.0f, -1e30f, 1e30f, infinity, -infinity,
                          std::nanf("")}) {
    places.insert(places.end(), {odd, 0.5f, odd, odd, odd, odd});
  }
  for (size_t i = 0; i < places.size(); i += 3) {
    const Cell cell =
        Locate<kIsDense>(level, places[i], places[i + 1], places[i + 2]);
    for (const int32_t index : cell.index) {
      EXPECT(index >= 0 && index < level.size);
    }
  }
}

void WeightsSumToOneAndTheirDerivativesToZero() {
  const std::vector<float> f = Uniform(300, 0.0f, 1.0f);
  const float v[3] = {0.3f, -2.0f, 1.0f};
  for (const bool smoothstep : {false, true}) {
    for (size_t i = 0; i < f.size(); i += 3) {
      const Axis x = MakeAxis(f[i], 10.0f, smoothstep);
      const Axis y = MakeAxis(f[i + 1], 10.0f, smoothstep);
      const Axis z = MakeAxis(f[i + 2], 10.0f, smoothstep);
      float sum = 0.0f, along = 0.0f;
      for (int k = 0; k < 8; ++k) {
        sum += Weight(x, y, z, k);
        along += WeightAlong(x, y, z, k, v);
      }
      EXPECT(std::fabs(sum - 1.0f) < 1e-5f);
      EXPECT(std::fabs(along) < 1e-4f);
    }
  }
}

// sum_k s_k v . grad weight_k, formed in the two orders.
void SlopeAndWeightAlongAgree() {
  const std::vector<float> f = Uniform(300, 0.0f, 1.0f);
  for (size_t i = 0; i < f.size(); i += 3) {
    const std::vector<float> s = Uniform(8, -1.0f, 1.0f);
    const std::vector<float> v = Uniform(3, -1.0f, 1.0f);
    const Axis x = MakeAxis(f[i], 7.0f, true);
    const Axis y = MakeAxis(f[i + 1], 7.0f, true);
    const Axis z = MakeAxis(f[i + 2], 7.0f, true);
    float slope[3], along = 0.0f;
    Slope(x, y, z, s.data(), slope);
    for (int k = 0; k < 8; ++k) {
      along += s[k] * WeightAlong(x, y, z, k, v.data());
    }
    const float dot = v[0] * slope[0] + v[1] * slope[1] + v[2] * slope[2];
    EXPECT(std::fabs(dot - along) < 1e-4f);
  }
}

// How many numbers a call makes.
int64_t NumResults(const HashGather& call) {
  return call.num_points * call.grid.num_levels * call.grid.num_features;
}
int64_t NumResults(const HashScatter& call) {
  return call.grid.num_entries * call.grid.num_features;
}
int64_t NumResults(const HashSlope& call) { return 3 * call.num_points; }

// The same bits on any threads and by any instructions, with and without a
// direction.
template <class Call>
void TheResultIsAlwaysTheSame(int features, int64_t num_points) {
  HashGrid grid = TwoLevels(true);
  grid.num_features = features;
  const int64_t columns = 2 * features;
  const std::vector<float> table =
      Uniform(features * grid.num_entries, -1.0f, 1.0f);
  const std::vector<float> position = Uniform(3 * num_points, 0.0f, 1.0f);
  const std::vector<float> cotangent =
      Uniform(columns * num_points, -1.0f, 1.0f);
  const std::vector<float> direction = Uniform(3 * num_points, -1.0f, 1.0f);
  for (const float* along : {static_cast<const float*>(nullptr),
                             direction.data()}) {
    Call call;
    static_cast<HashGridCall&>(call) = {
        grid, 1, num_points, table.data(), position.data(),
        cotangent.data(), along, nullptr};
    const auto result_of = [&call](const auto& run) {
      std::vector<float> result(NumResults(call), std::nanf(""));
      Call copy = call;
      copy.result = result.data();
      run(copy);
      return result;
    };
    ExpectSameOnEveryPool([&result_of](auto& pool) {
      return result_of([&pool](const Call& call) { Run(pool, call); });
    });
    const auto by = [&result_of](VectorUnit unit) {
      ThreadPool one(1);
      return result_of([&](const Call& call) { Run(one, call, unit); });
    };
    const std::vector<float> plain = by(VectorUnit::kPlain);
    for (const VectorUnit unit : {VectorUnit::kAvx2, VectorUnit::kAvx512}) {
      if (unit <= BestVectorUnit()) EXPECT(by(unit) == plain);
    }
  }
}

// More points than are laid level by level at once give the sum of what their
// halves give.
void ManyPointsAreAddedInRuns() {
  const HashGrid grid = TwoLevels(false);
  const int64_t num_points = (int64_t{1} << 20) + 5000;
  const std::vector<float> position = Uniform(3 * num_points, 0.0f, 1.0f);
  const std::vector<float> cotangent = Uniform(4 * num_points, -1.0f, 1.0f);
  const auto add = [&](int64_t begin, int64_t end) {
    std::vector<float> result(2 * grid.num_entries, std::nanf(""));
    HashScatter call;
    static_cast<HashGridCall&>(call) = {
        grid, 1, end - begin, nullptr, position.data() + 3 * begin,
        cotangent.data() + 4 * begin, nullptr, result.data()};
    EXPECT((RunsOf(call).size() > 1) == (end - begin == num_points));
    ThreadPool pool(2);
    Run(pool, call);
    return result;
  };
  const std::vector<float> all = add(0, num_points);
  const std::vector<float> first = add(0, num_points / 2);
  const std::vector<float> second = add(num_points / 2, num_points);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT(std::fabs(all[i] - first[i] - second[i]) < 1e-2f);
  }
}

}  // namespace
}  // namespace dreamjax

int main() {
  using namespace dreamjax;
  NoPointLeavesTheTable<true>(kDense);
  NoPointLeavesTheTable<false>(kHashed);
  WeightsSumToOneAndTheirDerivativesToZero();
  SlopeAndWeightAlongAgree();
  ManyPointsAreAddedInRuns();
  for (const int features : {1, 2, 4, 8}) {
    for (const int64_t num_points : {0, 1, 257, 8500}) {
      TheResultIsAlwaysTheSame<HashGather>(features, num_points);
      TheResultIsAlwaysTheSame<HashScatter>(features, num_points);
      TheResultIsAlwaysTheSame<HashSlope>(features, num_points);
    }
  }
}
