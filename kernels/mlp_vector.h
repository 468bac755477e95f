// The network's operations on a run of points, for one instruction set
// (for_each_unit.h); included once for each.

#include "mlp_block.h"

void RunBlock(const MlpValue& m, const float* weight, const Rows& rows,
              Scratch& s, Vector*) {
  const int last = m.num_matrices - 1;
  LoadRows(m.input, Inputs(m), rows.first, rows.count, s.layer[0]);
  Hide(m, weight, s);
  Multiply<Then::kKeep>(Forwards(m, weight, last), s.layer[last],
                        s.layer[last], s.delta[last + 1]);
  StoreRows(s.delta[last + 1], Outputs(m), rows.first, rows.count, m.result);
}

void PullRows(const Mlp& m, const float* weight, const Rows& rows,
              Scratch& s) {
  LoadRows(m.input, Inputs(m), rows.first, rows.count, s.layer[0]);
  LoadRows(m.cotangent, Outputs(m), rows.first, rows.count,
           s.delta[m.num_matrices]);
  Hide(m, weight, s);
  PullBack(m, weight, s);
}

void PullInput(const Mlp& m, const float* weight, const Rows& rows,
               Scratch& s) {
  PullRows(m, weight, rows, s);
  Multiply<Then::kKeep>(Backwards(m, weight, 0), s.delta[1], s.delta[1],
                        s.delta[0]);
  StoreRows(s.delta[0], Inputs(m), rows.first, rows.count, m.result);
}

void RunBlock(const MlpInputGradient& m, const float* weight, const Rows& rows,
              Scratch& s, Vector*) {
  PullInput(m, weight, rows, s);
}

void RunBlock(const MlpGradient& m, const float* weight, const Rows& rows,
              Scratch& s, Vector* sum) {
  PullInput(m, weight, rows, s);
  for (int l = 0; l < m.num_matrices; ++l) {
    AddOuter(s.layer[l], m.size[l], s.delta[l + 1], m.size[l + 1],
             m.size[l + 1], sum + MatrixAt(m, l));
  }
}

void RunBlock(const MlpSecond& m, const float* weight, const Rows& rows,
              Scratch& s, Vector* sum) {
  PullRows(m, weight, rows, s);
  const float* tangent = s.delta[0];
  LoadRows(m.direction, Inputs(m), rows.first, rows.count, s.delta[0]);
  for (int l = 0; l < m.num_matrices; ++l) {
    AddOuter(tangent, m.size[l], s.delta[l + 1], m.size[l + 1],
             m.size[l + 1], sum + MatrixAt(m, l));
    float* next = s.spare[l % 2];
    if (l + 1 < m.num_matrices) {
      Multiply<Then::kGate>(Forwards(m, weight, l), tangent, s.layer[l + 1],
                            next);
    } else {
      Multiply<Then::kKeep>(Forwards(m, weight, l), tangent, tangent, next);
    }
    tangent = next;
  }
  StoreRows(tangent, Outputs(m), rows.first, rows.count, m.result);
}

// Points [begin, end) of a batch; their share of the gradient of the weights
// goes to `partial` unless that is null.
template <class Call>
void RunPoints(const Call& call, int64_t batch, int64_t begin, int64_t end,
               float* partial) {
  const float* weight = call.weight + batch * NumWeights(call);
  Scratch scratch(call);
  Sums sums(partial == nullptr ? 0 : NumWeights(call));
  for (int64_t i = begin; i < end; i += kPoints) {
    const int count = static_cast<int>(std::min<int64_t>(kPoints, end - i));
    RunBlock(call, weight, {batch * call.num_points + i, count}, scratch,
             sums.at);
  }
  if (partial != nullptr) sums.Store(partial);
}
