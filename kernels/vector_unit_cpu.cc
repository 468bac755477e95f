// Which instructions this processor has.

#include "cpu.h"
#include "vector.h"

namespace dreamjax {

VectorUnit BestVectorUnit() {
#ifdef DJ_HAS_X86_VECTORS
  if (__builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2")) {
    return __builtin_cpu_supports("avx512f") ? VectorUnit::kAvx512
                                             : VectorUnit::kAvx2;
  }
#endif
  return VectorUnit::kPlain;
}

}  // namespace dreamjax
