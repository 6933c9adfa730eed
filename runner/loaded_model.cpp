#include "runner/loaded_model.h"

#include <new>

#include "runner/files/fail.h"

namespace msa::runner {

LoadedModel::LoadedModel(const Context& context, const std::filesystem::path& folder,
                         const ModelOptions& options)
    : context_(context), config_(read_config(folder)) {
  require(options.linear_dtype == DType::kFloat32 || options.linear_dtype == DType::kBFloat16,
          "model", "linear_dtype is wrong: got {}, allowed float32, bfloat16",
          dtype_name(options.linear_dtype));
  if (options.with_tokenizer) {
    tokenizer_ = Tokenizer::load(folder / "tokenizer.json");
    require(tokenizer_->vocab_size() <= config_.vocab_size, "model",
            "the tokenizer has more ids than the model: got {}, allowed at most {}",
            tokenizer_->vocab_size(), config_.vocab_size);
  }
  weights_ = read_weights(folder, config_, options.linear_dtype);
}

const Tokenizer& LoadedModel::tokenizer() const {
  if (!tokenizer_) {
    fail("model",
         "the model has no tokenizer: got one loaded with with_tokenizer = false, allowed true");
  }
  return *tokenizer_;
}

std::shared_ptr<const Model> Model::load(const Context& context,
                                         const std::filesystem::path& folder,
                                         const ModelOptions& options) {
  try {
    return std::make_shared<LoadedModel>(context, folder, options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("[model] no room for the weights: got {}, allowed what memory holds",
                            quote(folder.string())));
  }
}

}  // namespace msa::runner
