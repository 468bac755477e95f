// The Python module whose CPU targets run the CUDA kernels: tests only.
//
// The handlers are those of the real module; what they execute is what would
// be launched on a GPU. Targets that a GPU does not have stay as they are.

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
#include "hash_mlp_ffi.cc"
#include "mlp_ffi.cc"
#include "module.cc"
#include "rays_ffi.cc"
