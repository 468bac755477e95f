// Hash encoding and a small network in one pass, for a CPU: what a call is.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hash_grid.h"
#include "mlp.h"

namespace dreamjax {

// With features E of hash_grid.h and outputs f of mlp.h, at B batches of N
// points with O outputs,
//   output = f(E(x)),  slope = d output_0 / dx
// at the first count points of a batch; the others give 0 and get nothing back.
// E has 4 or 8 features per level. What an operation does not read is null.
struct HashMlp {
  HashGrid grid;
  Mlp mlp;                        // sizes, weights and partial sums
  const float* table;             // [B, T, F]
  const float* position;          // [B, N, 3]
  const int32_t* count;           // [B]
  const float* cotangent;         // [B, N, O], of the output
  const float* slope_cotangent;   // [B, N, 3]
};

inline int64_t NumUsed(const HashMlp& h, int64_t batch) {
  return std::clamp<int64_t>(h.count[batch], 0, h.mlp.num_points);
}

// Makes output and, unless it is null, slope.
struct HashMlpValue : HashMlp {
  float* output;  // [B, N, O]
  float* slope;   // [B, N, 3]
};

// The first half of the backward pass: the partial sums, and what the features
// are pulled by. With u = sum of slope_cotangent dE/dx, that is
//   pull[0] = d<cotangent, output>/dE and pull[1] = d output_0/dE.
struct HashMlpPull : HashMlp {
  float* pull;  // [2, B, L, N, F], or [1, ...] without slope_cotangent
};

// The second half, level by level: table_gradient =
//   sum over points and corners of weight pull[0]
//     + (slope_cotangent . grad weight) pull[1].
struct HashMlpScatter : HashMlp {
  const float* pull;
  float* table_gradient;  // [B, T, F]
};

}  // namespace dreamjax
