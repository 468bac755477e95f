// A small network of ReLU layers without biases: what a call is, for every
// backend.
#pragma once

#include <cstdint>

#include "core.h"

namespace dreamjax {

constexpr int kMaxMlpMatrices = 5;
constexpr int kMaxMlpWidth = 128;

// One call; B batches, N points, L matrices, S weights, C inputs, O outputs.
//   h_0 = input, z_l = h_{l-1} W_{l-1}, h_l = max(z_l, 0), output = z_L
// What an operation does not read is null.
struct Mlp {
  int num_matrices;                // L
  int size[kMaxMlpMatrices + 1];   // C, the hidden layers', O
  int64_t num_batches;
  int64_t num_points;
  int64_t num_parts;       // Q, of the gradient of the weights
  const float* weight;     // [B, S], the matrices [size_l, size_{l+1}]
  const float* input;      // [B, N, C]
  const float* cotangent;  // [B, N, O], of the output
  const float* direction;  // [B, N, C]
  float* result;
  float* partial;          // [B, Q, S], sums to the gradient of the weights
};

// result[B, N, O] = output.
struct MlpValue : Mlp {};
// result[B, N, C] = d/dinput of <cotangent, output>.
struct MlpInputGradient : Mlp {};
// The same, and d/dweight.
struct MlpGradient : Mlp {};
// result[B, N, O] = d/dcotangent of <direction, MlpInputGradient>, and
// d/dweight of it. The derivative with respect to the input is zero.
struct MlpSecond : Mlp {};

DJ_HD int64_t NumWeights(const Mlp& m) {
  int64_t sum = 0;
  for (int l = 0; l < m.num_matrices; ++l) {
    sum += int64_t{m.size[l]} * m.size[l + 1];
  }
  return sum;
}

// Where matrix l begins.
DJ_HD int64_t MatrixAt(const Mlp& m, int l) {
  int64_t sum = 0;
  for (int i = 0; i < l; ++i) sum += int64_t{m.size[i]} * m.size[i + 1];
  return sum;
}

DJ_HD int Inputs(const Mlp& m) { return m.size[0]; }
DJ_HD int Outputs(const Mlp& m) { return m.size[m.num_matrices]; }

}  // namespace dreamjax
