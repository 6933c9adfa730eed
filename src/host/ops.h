// Ops that compare and move but compute nothing, for every backend whose memory the host can read:
// the tables of reference and cpu share them, since there is only one right result to the bit.
#pragma once

#include "core/backend.h"

namespace msa::host {

void merge_candidates(const core::MergeCandidatesParams& params, const core::RunContext& run);
void select_blocks(const core::SelectBlocksParams& params, const core::RunContext& run);
void cache_append(const core::CacheAppendParams& params, const core::RunContext& run);
void copy_pages(const core::CopyPagesParams& params, const core::RunContext& run);

}  // namespace msa::host
