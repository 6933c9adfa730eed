// What the kernels of attention's backward get: the plan of the forward's reverse index, the op's
// tensors, and float32 sums that many thread blocks add to.
//
// A list of sums is what one (row, group) of dq, or one (token, group) of dk or dv, collects:
// `heads` vectors of D floats (G for dq, 1 for dk and dv). Their order is that of the accumulator
// registers, so that a thread adds 16 bytes at once and a warp 512 in a row: [D / 16, heads, 4, 4],
// see sum_place().
#pragma once

#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {

/// Float of its list where column `column` of head `head` lies. Thread c of a quad holds, of the 16
/// columns [16 s, 16 s + 16), the pairs (2 c, 2 c + 1) and (8 + 2 c, 9 + 2 c): 16 bytes.
MSA_HOST_DEVICE int sum_place(int heads, int head, int column) {
  const int step = column / 16;
  const int lane = column % 8 / 2;
  return ((step * heads + head) * 4 + lane) * 4 + column % 16 / 8 * 2 + column % 2;
}

/// What a row contributes beside its vectors.
struct RowStatistics {
  float lse2;   // of the forward, in base-two units
  float delta;  // rowsum(dout * out) - dlse
};

struct BackwardKernelParams {
  AttentionKernelParams plan;           // passes of [plan_begin, plan_end); no query tiles
  int num_passes = 0;                   // of the plan
  core::RowsParams<const void*> out;    // [Tq, Hq, D]
  core::RowsParams<const float*> lse;   // [Tq, Hq]
  core::RowsParams<const void*> dout;   // [Tq, Hq, D]
  core::RowsParams<const float*> dlse;  // [Tq, Hq], or null
  RowStatistics* statistics = nullptr;  // [plan rows, Hq]
  float* dq_sums = nullptr;             // [plan rows, Hkv, G * D]
  float* dk_sums = nullptr;             // [Tk, Hkv, D]
  float* dv_sums = nullptr;             // [Tk, Hkv, D]
};

/// Sums on their way to a gradient: row n of `to` gets list (n - first_row) * lists + head / heads.
struct FinishParams {
  const float* sums = nullptr;
  core::RowsParams<void*> to;  // [rows, lists * heads, D]
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int lists = 0;  // of a row
  int heads = 0;  // of a list
  int dim = 0;
  float scale = 1;
};

/// One item as the warps of a thread block see it; 32 bytes.
struct BackwardItem {
  int64_t first_visit;  // within plan.visits
  int32_t begin;        // first token of the block, as a row of k
  int32_t shift;        // local visits: position in the block is row in chunk + shift
  int32_t first_row;    // of the pass's chunk, within the plan
  int32_t group;
  uint32_t packed;  // see pack_item()
  int32_t unused;
};

}  // namespace msa::cuda
