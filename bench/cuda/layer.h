// One layer's tensors on the device, 64 query heads on 4 groups, D = Di = 128, blocks of 128, K 16,
// bf16, and the time of its ops: median, CUDA events, L2 flushed before every repeat.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/picks.h"
#include "msa/msa.h"

namespace msa::bench {

struct Shape {
  std::vector<int32_t> q_lens;
  std::vector<int32_t> k_lens;

  double index_flop() const;     // 2 Hkv Di for each visible key of each row
  double attend_flop() const;    // 4 Hq D for each attended key of each row
  double backward_flop() const;  // 10 Hq D for each attended key of each row
  double bytes() const;          // every input once, every output once
};

class Layer {
 public:
  Layer(const Context& context, const Shape& shape);
  ~Layer();
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  void set_picks(double keep, bool sink, uint64_t seed);
  double index_ms(int repeats);
  double attend_ms(int repeats);
  double dense_ms(int repeats);
  /// After set_picks(): of the forward's out and lse, with a random dout.
  double backward_ms(int repeats);
  size_t backward_workspace_bytes() const { return backward_workspace_bytes_; }
  size_t workspace_bytes() const;

 private:
  void* allocate(size_t bytes);
  template <typename Body>
  double median_ms(int repeats, const Body& body);

  const Context& context_;
  Shape shape_;
  std::vector<void*> memory_;
  IndexForwardArgs index_;
  AttentionForwardArgs attend_;
  Workspace workspace_;
  void* flush_ = nullptr;
  size_t backward_workspace_bytes_ = 0;
};

}  // namespace msa::bench
