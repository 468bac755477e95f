// Volume rendering on a GPU: one thread per ray.

#include "composite.h"
#include "launch.h"

namespace dreamjax {

const char* Launch(CUstream_st* stream, const CompositeForward& forward) {
  const Composite& c = forward.c;
  const int64_t slots = c.num_batches * c.num_slots;
  if (const char* problem =
          Explain(ForEach(stream, slots, ClearFreeWeight{forward}))) {
    return problem;
  }
  return Explain(ForEach(stream, c.num_batches * c.num_rays, forward));
}

const char* Launch(CUstream_st* stream, const CompositeBackward& backward) {
  const Composite& c = backward.c;
  const int64_t slots = c.num_batches * c.num_slots;
  if (const char* problem =
          Explain(ForEach(stream, slots, ClearFreeGradients{backward}))) {
    return problem;
  }
  return Explain(ForEach(stream, c.num_batches * c.num_rays, backward));
}

}  // namespace dreamjax
