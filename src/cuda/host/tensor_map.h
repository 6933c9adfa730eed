// Descriptors of the copy engine, made from strided views. Boxes are 64 columns (128 bytes) wide
// with 128-byte swizzle, the layout that the tensor cores read.
#pragma once

#include <cuda.h>

#include <initializer_list>

#include "core/params.h"

namespace msa::cuda {

/// Keys or values: [dim, tokens, heads, pages], box [64, block_size, 1, 1]. Without pages all
/// tokens are one page.
CUtensorMap key_map(const char* op, const char* name, const core::KeyParams& keys,
                    const core::SequenceParams& sequences, int64_t heads, int64_t dim,
                    int64_t block_size);

/// Queries: [dim, heads, tokens], box [64, box_heads, box_tokens].
CUtensorMap query_map(const char* op, const core::AttentionForwardParams& params, int64_t box_heads,
                      int64_t box_tokens);

/// Throws unless an address is a multiple of `alignment` bytes and strides of 16-bit elements are
/// a multiple of it too.
void check_alignment(const char* op, const char* name, const void* data,
                     std::initializer_list<int64_t> strides, int64_t alignment);

}  // namespace msa::cuda
