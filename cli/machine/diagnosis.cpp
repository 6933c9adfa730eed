#include "cli/machine/diagnosis.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "cli/machine/machine.h"
#include "cli/model/runner_model.h"
#include "cli/parts/arguments.h"
#include "cli/parts/machine.h"
#include "cli/parts/numbers.h"
#include "cli/parts/places.h"
#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

/// The demo's own length, and what is asked for most after that.
constexpr int64_t kDemoTokens = int64_t{32} << 10;
constexpr int64_t kLongPrompts[] = {kDemoTokens, int64_t{128} << 10, int64_t{1} << 20};
/// Program, libraries, activations and workspace of a chunk: `msa demo` of 32K takes 110 MB beside
/// its caches and weights.
constexpr double kWorkingBytes = 160e6;
/// Below this a build (about 0.6 GB) no longer fits.
constexpr double kWantedDisk = 1e9;

bool is_wide(const std::string& instruction_set) {
  return instruction_set.rfind("SSE", 0) != 0 && instruction_set.rfind("SSSE", 0) != 0;
}

class Doctor {
 public:
  Diagnosis examine(const std::string& model) {
    look_at_settings();
    look_at_cpu();
    look_at_gpu();
    look_at_model(model);
    look_at_memory();
    look_at_haystack();
    look_at_disk();
    return std::move(diagnosis_);
  }

 private:
  void add(std::string subject, Level level, std::string found, std::string advice = "") {
    diagnosis_.findings.push_back({std::move(subject), level, std::move(found), std::move(advice)});
  }

  /// MSA_BACKEND and MSA_THREADS, which every verb obeys.
  void look_at_settings() {
    try {
      context_.emplace();
    } catch (const Error& error) {
      add("settings", Level::kProblem, error.what(),
          "Unset MSA_BACKEND and MSA_THREADS, or give them values that are allowed.");
      return;
    }
    const auto processors = static_cast<int>(std::thread::hardware_concurrency());
    const int threads = context_->num_threads();
    add("threads", threads < processors ? Level::kNote : Level::kGood,
        fmt::format("{} of {} processors, backend {}", threads, processors,
                    backend_name(context_->backend())),
        threads < processors ? "MSA_THREADS holds it to fewer threads than there are processors."
                             : "");
  }

  void look_at_cpu() {
    ContextOptions options;
    options.backend = Backend::kCpu;
    options.num_threads = 1;
    const std::vector<std::string> sets = Context(options).instruction_sets();
    std::string found = fmt::format("{}; kernels for {}", cpu_name(), sets.front());
    if (sets.size() > 1) {
      found +=
          fmt::format(" chosen, {} possible too", fmt::join(sets.begin() + 1, sets.end(), ", "));
    }
    const bool wide = is_wide(sets.front());
    add("cpu", wide ? Level::kGood : Level::kNote, found,
        wide ? ""
             : "Without AVX2 the same work takes about four times as long; nothing to install.");
  }

  void look_at_gpu() {
    const std::vector<BackendState> states = backend_states();
    const BackendState& cuda = states.back();
    const GpuState gpu = gpu_state();
    if (cuda.usable) {
      add("cuda", Level::kGood, cuda.text);
      return;
    }
    const char* const devices[] = {"no NVIDIA GPU in this machine",
                                   "an NVIDIA GPU without its driver", "an NVIDIA GPU"};
    const std::string found = fmt::format("{}; {}", devices[static_cast<size_t>(gpu)], cuda.text);
    if (gpu == GpuState::kNone) {
      add("cuda", Level::kGood, found, "Nothing to do: the cpu backend does all of it.");
      return;
    }
    add("cuda", Level::kNote, found,
        gpu == GpuState::kNoDriver
            ? "For a Hopper GPU (H100, H800, H200) install NVIDIA's driver 580 or newer, then "
              "build "
              "with -DMSA_CUDA=ON (CUDA toolkit 12.8 or newer)."
            : "For a Hopper GPU (H100, H800, H200) install the CUDA toolkit 12.8 or newer and "
              "build "
              "with -DMSA_CUDA=ON; the tool itself runs on the cpu backend.");
  }

  void look_at_model(const std::string& folder) {
    try {
      const std::filesystem::path path = model_folder_of(folder);
      ContextOptions options;
      options.backend = Backend::kCpu;
      const std::shared_ptr<const runner::Model> model =
          runner::Model::load(Context(options), path);
      make_language_model(model);  // has the tokens that prompts are made of
      weight_bytes_ = static_cast<double>(model->weight_bytes());
      config_ = model->config();
      add("model", Level::kGood,
          fmt::format("{}, {:.2f} million parameters, up to {} tokens", printable(path.string()),
                      static_cast<double>(model->num_parameters()) / 1e6,
                      short_count(config_->max_position_embeddings)));
    } catch (const UsageError& error) {
      add("model", Level::kProblem, error.what(),
          "Take models/msa-mini from the project, or name a model folder with --model.");
    } catch (const Error& error) {
      add("model", Level::kProblem, error.what(),
          "The folder is damaged or of another make: fetch it again, or name another with "
          "--model.");
    }
  }

  void look_at_memory() {
    const MemoryState memory = memory_state();
    const std::string have =
        fmt::format("{} free of {}", human_bytes(memory.available), human_bytes(memory.total));
    if (!config_) {
      add("memory", Level::kNote, have, "What prompts need is known once there is a model.");
      return;
    }
    std::vector<std::string> needs;
    int64_t longest = 0;
    for (const int64_t tokens : kLongPrompts) {
      if (tokens > config_->max_position_embeddings) continue;
      const double need = weight_bytes_ + kWorkingBytes +
                          static_cast<double>(cache_bytes_per_token(*config_) * tokens);
      const bool fits = need <= memory.available;
      if (fits) longest = tokens;
      needs.push_back(fmt::format("{} {} {}", short_count(tokens), fits ? "needs" : "NEEDS",
                                  human_bytes(need)));
      if (tokens == kDemoTokens) demo_fits_ = fits;
    }
    const bool all =
        needs.empty() || longest == kLongPrompts[2] || longest == config_->max_position_embeddings;
    add("memory",
        !demo_fits_ ? Level::kProblem
        : all       ? Level::kGood
                    : Level::kNote,
        fmt::format("{}; a prompt of {}", have, fmt::join(needs, ", ")),
        !demo_fits_ ? "Close other programs, or ask for less with --length."
        : all ? ""
              : fmt::format("Prompts of up to {} tokens fit; close other programs for longer.",
                            short_count(longest)));
  }

  void look_at_haystack() {
    try {
      add("haystack", Level::kGood, "the project's texts in " + printable(project_root().string()));
    } catch (const UsageError& error) {
      add("haystack", Level::kProblem, error.what(),
          "Run it from a build folder or an installation of the project, or name texts with "
          "--file.");
    }
  }

  void look_at_disk() {
    std::error_code problem;
    const std::filesystem::path here = std::filesystem::current_path(problem);
    const std::filesystem::space_info space = std::filesystem::space(here, problem);
    if (problem) {
      add("disk", Level::kNote, fmt::format("this folder cannot be read: {}", problem.message()),
          "Pictures and picks are written where you are: change to a folder of yours.");
      return;
    }
    const auto available = static_cast<double>(space.available);
    add("disk", available < kWantedDisk ? Level::kNote : Level::kGood,
        fmt::format("{} free here; the demo writes nothing", human_bytes(available)),
        available < kWantedDisk ? "A build takes about 0.6 GB." : "");
  }

  Diagnosis diagnosis_;
  std::optional<Context> context_;
  std::optional<runner::ModelConfig> config_;
  double weight_bytes_ = 0;
  bool demo_fits_ = true;
};

}  // namespace

const char* level_name(Level level) {
  switch (level) {
    case Level::kGood:
      return "ok";
    case Level::kNote:
      return "note";
    case Level::kProblem:
      return "PROBLEM";
  }
  return "unknown";
}

bool Diagnosis::ready() const {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.level == Level::kProblem; });
}

Diagnosis diagnose(const std::string& model) { return Doctor().examine(model); }

std::string diagnosis_text(const Diagnosis& diagnosis) {
  std::string text;
  for (const Finding& finding : diagnosis.findings) {
    text += fmt::format("{:<8}{:<10}{}\n", level_name(finding.level), finding.subject,
                        printable(finding.found));
    if (!finding.advice.empty()) text += fmt::format("{:<18}-> {}\n", "", finding.advice);
  }
  return text + (diagnosis.ready() ? "\nThe demo can run: msa demo\n"
                                   : "\nThe demo cannot run here yet: see PROBLEM above.\n");
}

nlohmann::json diagnosis_json(const Diagnosis& diagnosis) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& finding : diagnosis.findings) {
    findings.push_back({{"subject", finding.subject},
                        {"level", level_name(finding.level)},
                        {"found", finding.found},
                        {"advice", finding.advice}});
  }
  return {{"ready", diagnosis.ready()}, {"findings", findings}};
}

}  // namespace msa::cli
