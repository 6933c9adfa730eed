#include "cpu/attention_tile.h"

#include <limits>

#include "core/element.h"

namespace msa::cpu {

void write_empty_attention_rows(const core::AttentionForwardParams& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < p.num_q_heads; ++h) {
      const int64_t offset = t * p.out_token_stride + h * p.out_head_stride;
      for (int64_t d = 0; d < p.head_dim; ++d) core::store_element(p.out, p.q_dtype, offset + d, 0);
      if (p.lse != nullptr) {
        p.lse[t * p.lse_token_stride + h * p.lse_head_stride] =
            -std::numeric_limits<float>::infinity();
      }
    }
  }
}

}  // namespace msa::cpu
