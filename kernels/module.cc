// The Python module: the handlers as capsules, and what they were built for.

#include <pybind11/pybind11.h>

#include "handlers.h"
#include "launch.h"

namespace py = pybind11;

namespace {

py::capsule Capsule(XLA_FFI_Error* (*handler)(XLA_FFI_CallFrame*)) {
  return py::capsule(reinterpret_cast<void*>(handler));
}

// {platform: {target: capsule}}.
py::dict Targets() {
  py::dict platforms, cpu;
#define DJ_ADD_CPU(name, target) cpu[target] = Capsule(Dreamjax##name##Cpu);
  DJ_TARGETS(DJ_ADD_CPU)
  DJ_CPU_TARGETS(DJ_ADD_CPU)
  platforms["cpu"] = cpu;
#ifdef DREAMJAX_CUDA
  if (dreamjax::CudaProblem() == nullptr) {
    py::dict cuda;
#define DJ_ADD_CUDA(name, target) cuda[target] = Capsule(Dreamjax##name##Cuda);
    DJ_TARGETS(DJ_ADD_CUDA)
    platforms["CUDA"] = cuda;
  }
#endif
  return platforms;
}

// Why there are no CUDA targets, or "".
py::str ProblemOfCuda() {
#ifdef DREAMJAX_CUDA
  const char* problem = dreamjax::CudaProblem();
  return problem == nullptr ? "" : problem;
#else
  return "built without CUDA";
#endif
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "Compiled kernels of dreamjax; see dreamjax/ops/kernels.py.";
  module.def("targets", &Targets);
  module.def("cuda_problem", &ProblemOfCuda);
  module.def("ffi_version", [] {
    return py::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  });
}
