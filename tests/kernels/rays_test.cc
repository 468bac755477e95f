// Marching and compositing: geometry of one ray, and many rays on threads.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "composite.h"
#include "cpu.h"
#include "march.h"
#include "testing.h"

namespace dreamjax {
namespace {

void RaysMeetTheBallWhereGeometrySays() {
  const float away[3] = {-3.0f, 0.0f, 0.0f}, forward[3] = {1.0f, 0.0f, 0.0f};
  const Span through = Intersect(away, forward, 1.0f);
  EXPECT(through.near == 2.0f && through.far == 4.0f);
  const float inside[3] = {0.5f, 0.0f, 0.0f};
  const Span out = Intersect(inside, forward, 1.0f);
  EXPECT(out.near == 0.0f && out.far == 0.5f);
  const float beside[3] = {0.0f, 1.0f, 0.0f};
  const Span touching = Intersect(beside, forward, 1.0f);
  EXPECT(!(touching.near < touching.far));
  const float nowhere[3] = {std::nanf(""), 0.0f, 0.0f};
  const Span lost = Intersect(nowhere, forward, 1.0f);
  EXPECT(!(lost.near < lost.far));
}

void CellsStayInTheGrid() {
  const float infinity = std::numeric_limits<float>::infinity();
  Candidates c = {{0.0f, 2.0f}, 0.0f, 0.1f, 8, 8, {4.0f, 4.0f, 0.5f}, {4.0f, 0, 0}};
  for (const float t : {-2.0f, -1.0f, -0.999f, 0.0f, 0.999f, 1.0f, 1e30f,
                        infinity, -infinity, std::nanf("")}) {
    EXPECT(c.Bit(t) >= 0 && c.Bit(t) < 512);
  }
  EXPECT(c.Bit(-0.01f) == 3 * 64 + 4 * 8);
  EXPECT(c.Bit(0.01f) == 4 * 64 + 4 * 8);
}

void AbsorptionIsRightToThreeUnitsOfTheLastPlace() {
  for (double depth = 1e-8; depth < 200.0; depth *= 1.0007) {
    const float rounded = static_cast<float>(depth);
    const double exact = -std::expm1(-static_cast<double>(rounded));
    EXPECT(std::fabs(Absorbed(rounded) - exact) < 1.8e-7 * exact);
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT(Absorbed(0.0f) == 0.0f && Absorbed(infinity) == 1.0f);
  EXPECT(std::isnan(Absorbed(std::nanf(""))));
}

// Rays through random boxes, marched and composited: the same bits on any
// threads, and opacities that are the sums of the weights.
void ThreadsDoNotChangeTheImage() {
  const int64_t rays = 1000, slots = 40000, cells = 16;
  std::vector<float> origin, direction;
  for (int64_t ray = 0; ray < rays; ++ray) {
    const std::vector<float> d = Uniform(3, -0.5f, 0.5f);
    const float length = std::sqrt(1.0f + d[1] * d[1] + d[2] * d[2]);
    origin.insert(origin.end(), {-2.0f, 0.0f, 0.0f});
    direction.insert(direction.end(),
                     {1.0f / length, d[1] / length, d[2] / length});
  }
  const std::vector<float> jitter = Uniform(rays, 0.0f, 0.999f);
  std::vector<uint8_t> occupancy;
  for (const float x : Uniform(cells * cells * cells / 8, 0.0f, 256.0f)) {
    occupancy.push_back(static_cast<uint8_t>(x));
  }
  const std::vector<float> density = Uniform(slots, 0.0f, 5.0f);
  const std::vector<float> value = Uniform(3 * slots, 0.0f, 1.0f);
  ExpectSameOnEveryPool([&](auto& pool) {
    std::vector<float> distance(slots), width(slots), image(3 * rays),
        opacity(rays), weight(slots), g_density(slots), g_value(3 * slots),
        g_width(slots);
    std::vector<int32_t> ray(slots), offset(rays + 1), overflow(1);
    Run(pool, March{1, rays, cells, slots, 64, 2.0f / 64, 1.0f, origin.data(),
                    direction.data(), jitter.data(), occupancy.data(),
                    distance.data(), width.data(), ray.data(), offset.data(),
                    overflow.data()});
    EXPECT(offset[rays] > 1000);
    const Composite c = {1, rays, slots, 3, density.data(), value.data(),
                         width.data(), offset.data()};
    Run(pool, CompositeForward{c, image.data(), opacity.data(),
                               weight.data()});
    Run(pool, CompositeBackward{c, image.data(), opacity.data(), weight.data(),
                                g_density.data(), g_value.data(),
                                g_width.data()});
    for (int64_t i = 0; i < rays; ++i) {
      float sum = 0.0f;
      for (int32_t s = offset[i]; s < offset[i + 1]; ++s) sum += weight[s];
      EXPECT(std::fabs(sum - opacity[i]) < 1e-5f);
    }
    std::vector<float> all = distance;
    for (const auto& part :
         {image, opacity, weight, g_density, g_value, g_width}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  });
}

}  // namespace
}  // namespace dreamjax

int main() {
  dreamjax::RaysMeetTheBallWhereGeometrySays();
  dreamjax::CellsStayInTheGrid();
  dreamjax::AbsorptionIsRightToThreeUnitsOfTheLastPlace();
  dreamjax::ThreadsDoNotChangeTheImage();
}
