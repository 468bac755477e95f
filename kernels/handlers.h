// XLA FFI handlers by the name of their target.
#pragma once

#include "xla/ffi/api/c_api.h"

// X(function, target)
#define DJ_HASH_TARGETS(X)                                   \
  X(HashEncode, "dreamjax_hash_encode")                      \
  X(HashTableGradient, "dreamjax_hash_table_gradient")       \
  X(HashTableGradients, "dreamjax_hash_table_gradients")     \
  X(HashPositionGradient, "dreamjax_hash_position_gradient") \
  X(HashSecondTable, "dreamjax_hash_second_table")           \
  X(HashSecondPosition, "dreamjax_hash_second_position")     \
  X(HashSecondCotangent, "dreamjax_hash_second_cotangent")

#define DJ_MLP_TARGETS(X)                        \
  X(MlpRun, "dreamjax_mlp")                      \
  X(MlpPullInput, "dreamjax_mlp_input_gradient") \
  X(MlpPull, "dreamjax_mlp_gradient")            \
  X(MlpPullTwice, "dreamjax_mlp_second")

#define DJ_RAY_TARGETS(X)                                 \
  X(MarchRays, "dreamjax_march")                          \
  X(CompositeRays, "dreamjax_composite")                  \
  X(CompositeRaysGradient, "dreamjax_composite_gradient")

#define DJ_TARGETS(X) DJ_HASH_TARGETS(X) DJ_MLP_TARGETS(X) DJ_RAY_TARGETS(X)

// Operations that other platforms make of those above.
#define DJ_CPU_TARGETS(X)                                             \
  X(HashMlpRun, "dreamjax_hash_mlp")                                  \
  X(HashMlpRunSlope, "dreamjax_hash_mlp_slope")                       \
  X(HashMlpPullBack, "dreamjax_hash_mlp_gradient")                    \
  X(HashMlpPullSlope, "dreamjax_hash_mlp_slope_gradient")

#define DJ_DECLARE_HANDLER(function, target)                       \
  extern "C" XLA_FFI_Error* Dreamjax##function##Cpu(XLA_FFI_CallFrame*); \
  extern "C" XLA_FFI_Error* Dreamjax##function##Cuda(XLA_FFI_CallFrame*);
DJ_TARGETS(DJ_DECLARE_HANDLER)
DJ_CPU_TARGETS(DJ_DECLARE_HANDLER)
#undef DJ_DECLARE_HANDLER
