// Marching on a CPU: the arithmetic of a run of candidates in vector registers.

#include "cpu.h"

namespace dreamjax {

DJ_CLONES void Fill(const Candidates& candidates, int32_t first,
                    CandidateRun& run) {
  const Candidates c = candidates;
  for (int i = 0; i < CandidateRun::kSize; ++i) {
    run.distance[i] = c.Distance(first + i);
    run.bit[i] = c.Bit(run.distance[i]);
  }
}

}  // namespace dreamjax
