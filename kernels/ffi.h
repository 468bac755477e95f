// What the XLA FFI handlers share; for source files that define some of them.
//
// A handler is one body, bound for CPU and for CUDA. Python checks arguments
// and explains; the checks here only keep a wrong call from reading beyond its
// buffers.
#pragma once

#include <cstdint>
#include <string>

#include "cpu.h"
#include "handlers.h"
#include "launch.h"
#include "xla/ffi/api/ffi.h"

namespace xla::ffi {
template <>
struct CtxBinding<ThreadPool> {
  using Ctx = ThreadPool;
};
template <>
struct CtxBinding<CUstream_st*> {
  using Ctx = PlatformStream<CUstream_st*>;
};
}  // namespace xla::ffi

namespace dreamjax {
namespace {

namespace ffi = xla::ffi;

using F32 = ffi::Buffer<ffi::F32>;
using I32 = ffi::Buffer<ffi::S32>;
using U8 = ffi::Buffer<ffi::U8>;
using F32Out = ffi::ResultBuffer<ffi::F32>;
using I32Out = ffi::ResultBuffer<ffi::S32>;

// Runs a call, and is the only thing that differs between the backends.
template <class Call>
ffi::Error Execute(ffi::ThreadPool& pool, const Call& call) {
  Run(pool, call);
  return ffi::Error::Success();
}

#ifdef DREAMJAX_CUDA
template <class Call>
ffi::Error Execute(CUstream_st* stream, const Call& call) {
  const char* problem = Launch(stream, call);
  if (problem == nullptr) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("dreamjax: CUDA says: ") + problem +
                              "; DREAMJAX_KERNELS=off does without kernels.");
}
#endif

ffi::Error Misfit() {
  return ffi::Error::InvalidArgument(
      "dreamjax: the buffers of a kernel do not fit each other.");
}

template <class Buffer>
bool Has(const Buffer& buffer, int64_t count) {
  return static_cast<int64_t>(buffer.element_count()) == count;
}

// The size of axis `from_last` counted from the last one, 0 if there is none.
template <class Buffer>
int64_t Size(const Buffer& buffer, size_t from_last) {
  const auto sizes = buffer.dimensions();
  return from_last < sizes.size() ? sizes[sizes.size() - 1 - from_last] : 0;
}

// The product of all axes but the last `rank`.
template <class Buffer>
int64_t Batches(const Buffer& buffer, size_t rank) {
  const auto sizes = buffer.dimensions();
  int64_t product = 1;
  for (size_t i = 0; i + rank < sizes.size(); ++i) product *= sizes[i];
  return product;
}

}  // namespace
}  // namespace dreamjax

// X(function, target) that defines a handler. The rest of each binding is read
// off the handler's signature.
#define DJ_DEFINE(symbol, implementation, traits)                          \
  extern "C" XLA_FFI_Error* symbol(XLA_FFI_CallFrame* frame) {             \
    static auto* handler =                                                 \
        xla::ffi::Ffi::BindTo(&dreamjax::implementation, traits).release(); \
    return handler->Call(frame);                                           \
  }

#define DJ_DEFINE_CPU(name, target) \
  DJ_DEFINE(Dreamjax##name##Cpu, name<xla::ffi::ThreadPool>, {})

#ifdef DREAMJAX_CUDA
// Always the same launches for the same shapes: they can be recorded.
#define DJ_DEFINE_CUDA(name, target)                  \
  DJ_DEFINE(Dreamjax##name##Cuda, name<CUstream_st*>, \
            {xla::ffi::Traits::kCmdBufferCompatible})
#else
#define DJ_DEFINE_CUDA(name, target)
#endif
