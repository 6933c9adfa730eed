// Attention over two parts of the keys, merged.
#pragma once

#include <vector>

#include "library/cases.h"

namespace msa::test {

/// merge_states of two float32 results [batch.num_rows, num_heads, dim].
inline AttentionResult merge_pair(const Context& context, const Case& batch, int64_t num_heads,
                                  int64_t dim, const AttentionResult& a, const AttentionResult& b) {
  AttentionResult merged = {std::vector<float>(a.out.size(), 77.0f),
                            std::vector<float>(a.lse.size(), 77.0f)};
  const auto out = [&](const AttentionResult& of) {
    return MutableTensor(const_cast<float*>(of.out.data()), DType::kFloat32,
                         {batch.num_rows, num_heads, dim});
  };
  const auto lse = [&](const AttentionResult& of) {
    return MutableTensor(const_cast<float*>(of.lse.data()), DType::kFloat32,
                         {batch.num_rows, num_heads});
  };
  MergeStatesArgs args;
  args.out_a = out(a);
  args.lse_a = lse(a);
  args.out_b = out(b);
  args.lse_b = lse(b);
  args.out = out(merged);
  args.lse = lse(merged);
  merge_states(context, args);
  return merged;
}

}  // namespace msa::test
