#include "cli/parts/arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <random>

#include "cli/model/runner_model.h"
#include "cli/parts/numbers.h"
#include "cli/parts/places.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {

CLI::Option* add_count(CLI::App& app, const std::string& name, int64_t& target, int64_t least,
                       int64_t most, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&target, name, least, most](const std::string& text) {
            target = parse_count(name, text, least, most);
          },
          help)
      ->type_name("N")
      ->default_str(short_count(target));
}

CLI::Option* add_counts(CLI::App& app, const std::string& name, std::vector<int64_t>& target,
                        int64_t least, int64_t most, const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [&target, name, least, most](const std::vector<std::string>& texts) {
            target.clear();
            for (const std::string& text : texts) {
              target.push_back(parse_count(name, text, least, most));
            }
          },
          help)
      ->type_name("N");
}

CLI::Option* add_seed(CLI::App& app, std::optional<uint64_t>& target, const std::string& help) {
  return app
      .add_option_function<std::string>(
          "--seed", [&target](const std::string& text) { target = parse_seed("--seed", text); },
          help)
      ->type_name("S");
}

CLI::Option* add_real(CLI::App& app, const std::string& name, double& target, double least,
                      double most, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&target, name, least, most](const std::string& text) {
            target = parse_real(name, text, least, most);
          },
          help)
      ->type_name("X")
      ->default_str(fmt::format("{}", target));
}

CLI::Option* add_model(CLI::App& app, std::string& target) {
  return app
      .add_option("--model", target, "Folder with config.json, *.safetensors and tokenizer.json")
      ->type_name("DIR")
      ->default_str("the shipped model, models/msa-mini");
}

CLI::Option* add_choice(CLI::App& app, const std::string& name, std::string& target,
                        const std::vector<std::string>& allowed, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&target, name, allowed](const std::string& text) {
            if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
              throw UsageError(
                  fmt::format("{}: got '{}', allowed {}", name, text, fmt::join(allowed, ", ")));
            }
            target = text;
          },
          help)
      ->type_name(fmt::format("{}", fmt::join(allowed, "|")))
      ->default_str(target);
}

uint64_t seed_or_fresh(const std::optional<uint64_t>& seed) {
  if (seed) return *seed;
  std::random_device device;
  return device();  // 32 bits: short enough to type again
}

std::filesystem::path model_folder_of(const std::string& folder) {
  if (folder.empty()) return default_model_folder();
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw UsageError(fmt::format("--model: got '{}', allowed a folder with a model", folder));
  }
  return folder;
}

std::shared_ptr<const runner::Model> model_of(const std::string& folder) {
  return load_model(model_folder_of(folder));
}

std::vector<SourceText> haystack_texts(const std::vector<std::string>& files,
                                       const std::vector<TypedFact>& typed) {
  const bool own = files.empty();
  std::vector<SourceText> texts =
      own ? read_project_texts(project_root()) : read_haystack_files(files);
  for (const TypedFact& fact : typed) remove_lines(texts, fact.key, own ? "" : fact.value);
  return texts;
}

std::string haystack_name(const std::vector<std::string>& files) {
  if (files.empty()) return "the project's own sources and documentation";
  return files.size() == 1 ? files[0] : fmt::format("{} files", files.size());
}

}  // namespace msa::cli
