// Volume rendering on a GPU: one thread per ray.

#include "composite.h"
#include "launch.h"

namespace dreamjax {

namespace {

template <class Call, class Clear>
const char* Queue(CUstream_st* stream, const Call& call, const Clear& clear) {
  const Composite& c = call.c;
  cudaError_t error = ForEachFree(stream, c, clear);
  if (error == cudaSuccess) {
    error = ForEach(stream, c.num_batches * c.num_rays, call);
  }
  return Explain(error);
}

}  // namespace

const char* Launch(CUstream_st* stream, const CompositeForward& forward) {
  return Queue(stream, forward, ClearWeight{forward});
}

const char* Launch(CUstream_st* stream, const CompositeBackward& backward) {
  return Queue(stream, backward, ClearGradients{backward});
}

}  // namespace dreamjax
