// The CUDA side of each operation, for code that knows no CUDA header.
#pragma once

#include "composite.h"
#include "hash_grid.h"
#include "march.h"
#include "mlp.h"

struct CUstream_st;

namespace dreamjax {

// Each queues its kernels on a stream, without waiting or allocating, and
// returns null or the reason why it could not.
const char* Launch(CUstream_st* stream, const HashGather& call);
const char* Launch(CUstream_st* stream, const HashScatter& call);
const char* Launch(CUstream_st* stream, const HashSlope& call);
const char* Launch(CUstream_st* stream, const MlpValue& call);
const char* Launch(CUstream_st* stream, const MlpInputGradient& call);
const char* Launch(CUstream_st* stream, const MlpGradient& call);
const char* Launch(CUstream_st* stream, const MlpSecond& call);
const char* Launch(CUstream_st* stream, const March& march);
const char* Launch(CUstream_st* stream, const CompositeForward& forward);
const char* Launch(CUstream_st* stream, const CompositeBackward& backward);

// Null, or why the kernels cannot run with this machine's driver. A machine
// without a driver has no GPU to run them on, and nothing is wrong.
const char* CudaProblem();

}  // namespace dreamjax
