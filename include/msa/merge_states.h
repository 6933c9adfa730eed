// Two partial attentions of the same queries over disjoint keys, made one.
//
//   lse = log(exp(lse_a) + exp(lse_b))        out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b
//
// Computed from max(lse_a, lse_b), so nothing overflows. A part with lse = -inf saw nothing: its
// out is not read, the other's is taken as it is, and if both are empty out = 0 and lse = -inf.
// Parts may be float32 while out has the type of the queries, so that rounding happens once.
#pragma once

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

struct MergeStatesArgs {
  Tensor out_a;  ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor lse_a;  ///< float32 [Tq, Hq], natural log
  Tensor out_b;  ///< as out_a, with the same type
  Tensor lse_b;  ///< as lse_a

  /// Outputs. They may be the very views of one part: each element is read before it is written.
  MutableTensor out;  ///< [Tq, Hq, D] float32, bfloat16 or float16
  MutableTensor lse;  ///< optional, float32 [Tq, Hq]
};

/// Needs no workspace memory; of the workspace only the stream is used.
void merge_states(const Context& context, const MergeStatesArgs& args, Workspace workspace = {});

}  // namespace msa
