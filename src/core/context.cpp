#include "msa/context.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "core/backend.h"
#include "core/parallel.h"
#include "msa/error.h"

namespace msa {
namespace {

constexpr int kMaxThreads = 1024;

Backend backend_from_environment() {
  const char* name = std::getenv("MSA_BACKEND");
  if (name == nullptr || *name == '\0') return Backend::kCpu;
  for (Backend backend : {Backend::kReference, Backend::kCpu, Backend::kCuda}) {
    if (std::strcmp(name, backend_name(backend)) == 0) return backend;
  }
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("[context] MSA_BACKEND is unknown: got \"{}\", allowed reference, cpu, cuda",
                  name));
}

int threads_from_environment() {
  const char* text = std::getenv("MSA_THREADS");
  if (text == nullptr || *text == '\0') {
    const unsigned found = std::thread::hardware_concurrency();
    return found == 0 ? 1 : static_cast<int>(found < kMaxThreads ? found : kMaxThreads);
  }
  int threads = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, problem] = std::from_chars(text, end, threads);
  if (problem != std::errc() || stop != end || threads < 1 || threads > kMaxThreads) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[context] MSA_THREADS is wrong: got \"{}\", allowed 1 to {}", text,
                            kMaxThreads));
  }
  return threads;
}

const core::BackendTable& table_of(Backend backend) {
  switch (backend) {
    case Backend::kReference:
      return core::reference_backend();
    case Backend::kCpu:
      return core::cpu_backend();
    case Backend::kCuda:
      return core::cuda_backend();
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("[context] backend is unknown: got {}, allowed 0 to 2",
                          static_cast<int>(backend)));
}

}  // namespace

const char* backend_name(Backend backend) {
  switch (backend) {
    case Backend::kReference:
      return "reference";
    case Backend::kCpu:
      return "cpu";
    case Backend::kCuda:
      return "cuda";
  }
  return "unknown backend";
}

const char* op_name(Op op) {
  switch (op) {
    case Op::kIndexForward:
      return "index_forward";
    case Op::kAttentionForward:
      return "attention_forward";
    case Op::kDenseAttentionForward:
      return "dense_attention_forward";
    case Op::kIndexCandidates:
      return "index_candidates";
    case Op::kMergeCandidates:
      return "merge_candidates";
    case Op::kMergeStates:
      return "merge_states";
    case Op::kCacheAppend:
      return "cache_append";
    case Op::kCopyPages:
      return "copy_pages";
    case Op::kAttentionBackward:
      return "attention_backward";
    case Op::kDenseAttentionBackward:
      return "dense_attention_backward";
    case Op::kKlForwardBackward:
      return "kl_forward_backward";
    case Op::kRecall:
      return "recall";
    case Op::kSelectBlocks:
      return "select_blocks";
  }
  return "unknown op";
}

Context::Context(ContextOptions options)
    : backend_(options.backend ? *options.backend : backend_from_environment()),
      num_threads_(options.num_threads != 0 ? options.num_threads : threads_from_environment()),
      parallel_for_(std::move(options.parallel_for)),
      table_(&table_of(backend_)) {
  if (num_threads_ < 1 || num_threads_ > kMaxThreads) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[context] num_threads is wrong: got {}, allowed 1 to {}, or 0 for all",
                            num_threads_, kMaxThreads));
  }
  const std::string reason = table_->unavailable();
  if (!reason.empty()) {
    throw Error(ErrorCode::kUnsupported, fmt::format("[context] the {} backend cannot run here: {}",
                                                     backend_name(backend_), reason));
  }
  if (!parallel_for_) parallel_for_ = core::openmp_parallel_for(num_threads_);
}

std::string Context::description() const {
  return fmt::format("{}: {}, {} thread{}", backend_name(backend_), table_->description(),
                     num_threads_, num_threads_ == 1 ? "" : "s");
}

std::vector<std::string> Context::instruction_sets() const {
  return table_->instruction_sets == nullptr ? std::vector<std::string>()
                                             : table_->instruction_sets();
}

namespace {

/// What no backend has, whatever the op: "" or the reason.
std::string impossible(Op op, const Geometry& geometry, DType dtype) {
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16 && dtype != DType::kFloat16) {
    return fmt::format("type {}, allowed float32, bfloat16, float16", dtype_name(dtype));
  }
  for (const int64_t size : {geometry.num_q_heads, geometry.num_kv_heads, geometry.head_dim,
                             geometry.block_size, geometry.top_k}) {
    if (size < 0) return fmt::format("a size of {}, allowed 0 or more", size);
  }
  const bool groups = op == Op::kAttentionForward || op == Op::kDenseAttentionForward ||
                      op == Op::kAttentionBackward || op == Op::kDenseAttentionBackward ||
                      op == Op::kKlForwardBackward || op == Op::kRecall;
  if (groups && geometry.num_kv_heads > 0 && geometry.num_q_heads % geometry.num_kv_heads != 0) {
    return fmt::format("{} query heads on {} key-value heads, allowed a multiple",
                       geometry.num_q_heads, geometry.num_kv_heads);
  }
  return "";
}

}  // namespace

Support supports(const Context& context, Op op, const Geometry& geometry, DType dtype) {
  const core::BackendTable& table = context.table();
  bool has_op = false;
  switch (op) {
    case Op::kIndexForward:
      has_op = table.index_forward != nullptr;
      break;
    case Op::kAttentionForward:
      has_op = table.attention_forward != nullptr;
      break;
    case Op::kDenseAttentionForward:
      has_op = table.dense_attention_forward != nullptr;
      break;
    case Op::kIndexCandidates:
      has_op = table.index_candidates != nullptr;
      break;
    case Op::kMergeCandidates:
      has_op = table.merge_candidates != nullptr;
      break;
    case Op::kMergeStates:
      has_op = table.merge_states != nullptr;
      break;
    case Op::kCacheAppend:
      has_op = table.cache_append != nullptr;
      break;
    case Op::kCopyPages:
      has_op = table.copy_pages != nullptr;
      break;
    case Op::kAttentionBackward:
      has_op = table.attention_backward != nullptr;
      break;
    case Op::kDenseAttentionBackward:
      has_op = table.dense_attention_backward != nullptr;
      break;
    case Op::kKlForwardBackward:
      has_op = table.kl_forward_backward != nullptr;
      break;
    case Op::kRecall:
      has_op = table.recall != nullptr;
      break;
    case Op::kSelectBlocks:
      has_op = table.select_blocks != nullptr;
      break;
  }
  Support support;
  support.reason =
      has_op ? impossible(op, geometry, dtype) : fmt::format("it has no op {}", op_name(op));
  if (support.reason.empty()) support.reason = table.unsupported(op, geometry, dtype);
  support.supported = support.reason.empty();
  return support;
}

}  // namespace msa
