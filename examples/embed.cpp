// Sparse attention on memory that you own: one sequence, 8 query heads on 2 key-value heads.
#include <msa/msa.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main() {
  constexpr int64_t T = 1024, Hq = 8, Hkv = 2, D = 64, B = 64, K = 4;
  constexpr auto f32 = msa::DType::kFloat32, i32 = msa::DType::kInt32;
  std::vector<float> q(T * Hq * D, 0.5f), k(T * Hkv * D, 0.5f), v(T * Hkv * D), out(T * Hq * D);
  std::vector<float> q_idx(T * Hkv * D, 1.0f), k_idx(T * D);
  std::vector<int32_t> lengths = {0, T}, ids(Hkv * T * K);
  std::fill_n(&k_idx[300 * D], D, 1.0f);  // token 300, in block 4, is the one to find
  std::fill_n(&v[300 * Hkv * D], Hkv * D, 1.0f);

  const msa::Context context;  // the CPU and all its threads, or MSA_BACKEND and MSA_THREADS
  msa::IndexForwardArgs index;
  index.q_idx = {q_idx.data(), f32, {T, Hkv, D}};
  index.k_idx = {k_idx.data(), f32, {T, D}};
  index.sequences.cu_seqlens_q = index.sequences.cu_seqlens_k = {lengths.data(), i32, {2}};
  index.block_size = B;
  index.block_ids = {ids.data(), i32, {Hkv, T, K}};

  msa::AttentionForwardArgs attention;
  attention.q = {q.data(), f32, {T, Hq, D}};
  attention.k = {k.data(), f32, {T, Hkv, D}};
  attention.v = {v.data(), f32, {T, Hkv, D}};
  attention.sequences = index.sequences;
  attention.block_size = B;
  attention.block_ids = index.block_ids;
  attention.out = {out.data(), f32, {T, Hq, D}};

  const size_t bytes = std::max(index_forward_workspace_size(context, index),
                                attention_forward_workspace_size(context, attention));
  const msa::Workspace workspace = {std::aligned_alloc(64, bytes + 64 - bytes % 64), bytes};
  index_forward(context, index, workspace);
  attention_forward(context, attention, workspace);
  std::free(workspace.data);
  std::printf("the last token reads blocks %d %d %d %d, out = %f\n", ids[T * K - 4], ids[T * K - 3],
              ids[T * K - 2], ids[T * K - 1], static_cast<double>(out.back()));
}
