// The runner's model behind the tool's interface.
#pragma once

#include <filesystem>
#include <memory>

#include "cli/model/language_model.h"
#include "runner/runner.h"

namespace msa::cli {

/// Throws UsageError when the model lacks a special token of the prompt format.
std::unique_ptr<LanguageModel> make_language_model(std::shared_ptr<const runner::Model> model);

/// Loads a folder with the default context; `folder` must exist.
std::shared_ptr<const runner::Model> load_model(const std::filesystem::path& folder);

/// The id of a special token, or UsageError.
int32_t special_token(const runner::Model& model, std::string_view name);

}  // namespace msa::cli
