// The Python module whose CPU targets run the CUDA kernels: tests only.
//
// The handlers are those of the real module; what they execute is what would
// be launched on a GPU. There are no other targets than a GPU has.

#include <stdexcept>

#include "ffi.h"

namespace dreamjax {

// Preferred to the templates of cpu.h.
#define DJ_LAUNCH(Call)                                           \
  inline void Run(ffi::ThreadPool&, const Call& call) {           \
    if (const char* problem = Launch(nullptr, call)) {            \
      throw std::runtime_error(problem);                          \
    }                                                             \
  }
DJ_LAUNCH(HashGather)
DJ_LAUNCH(HashScatter)
DJ_LAUNCH(HashSlope)
DJ_LAUNCH(MlpValue)
DJ_LAUNCH(MlpInputGradient)
DJ_LAUNCH(MlpGradient)
DJ_LAUNCH(MlpSecond)
DJ_LAUNCH(March)
DJ_LAUNCH(CompositeForward)
DJ_LAUNCH(CompositeBackward)

}  // namespace dreamjax

#include "hash_grid_ffi.cc"
#include "mlp_ffi.cc"
#undef DJ_CPU_TARGETS
#define DJ_CPU_TARGETS(X)
#include "module.cc"
#include "rays_ffi.cc"
