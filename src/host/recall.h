// The recalls of a row from the masses of its blocks, and their means; see msa/recall.h. Every
// backend whose memory the host can read finds the masses in its own way and shares the rest.
#pragma once

#include "core/backend.h"

namespace msa::host {

/// Where packed row t stands: position i, or -1 for a row that sees nothing.
struct RecallRow {
  int64_t t = 0;
  int64_t group = 0;
  int64_t position = -1;
  /// The local block, or -1 where the row does not count.
  int64_t local_block(const core::AttentionForwardParams& p) const {
    const int64_t local = position < 0 ? -1 : position / p.block_size;
    return local + 1 > p.block_ids.top_k ? local : -1;
  }
};

/// The four recalls of a row that counts. `mass` [local + 1]; `order` has room for as many ids.
void find_recalls(const core::RecallParams& p, const RecallRow& row, const double* mass,
                  int32_t* order, double* recalls);
/// NaN for a row that does not count.
void write_uncounted(double* recalls);

/// Writes the outputs. `recalls` [Hkv][Tq][4]; the means are sums in this order.
void write_recalls(const core::RecallParams& p, const double* recalls);

}  // namespace msa::host
