// Options with checked numbers, and what several verbs share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/quiz/haystack.h"
#include "cli/quiz/quiz.h"
#include "runner/runner.h"

namespace msa::cli {

/// The most tokens that any model of this family has positions for.
inline constexpr int64_t kMostTokens = int64_t{4} << 20;

/// An option that takes a count (32K, 1M) within bounds.
CLI::Option* add_count(CLI::App& app, const std::string& name, int64_t& target, int64_t least,
                       int64_t most, const std::string& help);
/// The same, several times.
CLI::Option* add_counts(CLI::App& app, const std::string& name, std::vector<int64_t>& target,
                        int64_t least, int64_t most, const std::string& help);
CLI::Option* add_seed(CLI::App& app, std::optional<uint64_t>& target, const std::string& help);
CLI::Option* add_real(CLI::App& app, const std::string& name, double& target, double least,
                      double most, const std::string& help);
CLI::Option* add_model(CLI::App& app, std::string& target);
/// An option whose value is one of `allowed`.
CLI::Option* add_choice(CLI::App& app, const std::string& name, std::string& target,
                        const std::vector<std::string>& allowed, const std::string& help);

/// The seed that was given, or a fresh one.
uint64_t seed_or_fresh(const std::optional<uint64_t>& seed);

/// The folder of --model, or of the shipped model.
std::filesystem::path model_folder_of(const std::string& folder);
/// The model in it.
std::shared_ptr<const runner::Model> model_of(const std::string& folder);

/// The texts of --file, or the project's own. Left out are lines that already hold one of the typed
/// facts; and of the project's own texts, whose examples have facts too, all that name its key.
std::vector<SourceText> haystack_texts(const std::vector<std::string>& files,
                                       const std::vector<TypedFact>& typed);
/// Says what the haystack is: "the project's own sources and documentation", or "3 files".
std::string haystack_name(const std::vector<std::string>& files);

}  // namespace msa::cli
