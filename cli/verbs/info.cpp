// msa info: the machine, the backends and the model.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/machine/machine.h"
#include "cli/model/runner_model.h"
#include "cli/parts/arguments.h"
#include "cli/parts/machine.h"
#include "cli/parts/numbers.h"
#include "cli/parts/output.h"
#include "cli/parts/usage_error.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

Json machine_json() {
  Json backends = Json::array();
  for (const BackendState& state : backend_states()) {
    backends.push_back({{"name", backend_name(state.backend)},
                        {"usable", state.usable},
                        {state.usable ? "description" : "why_not", state.text}});
  }
  const MemoryState memory = memory_state();
  const Context chosen;
  return {{"version", version()},
          {"cpu", cpu_name()},
          {"threads", chosen.num_threads()},
          {"memory_bytes", memory.total},
          {"memory_available_bytes", memory.available},
          {"backends", backends},
          {"backend", backend_name(chosen.backend())},
          {"backend_description", chosen.description()}};
}

Json ops_json(const Context& context, const runner::ModelConfig& config) {
  Json ops = Json::object();
  for (const Op op : {Op::kIndexForward, Op::kAttentionForward, Op::kDenseAttentionForward}) {
    Geometry geometry{config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                      config.block_size, config.top_k};
    if (op == Op::kIndexForward) geometry.head_dim = config.index_dim;
    const Support support = supports(context, op, geometry, DType::kBFloat16);
    ops[op_name(op)] = support.supported ? "supported" : support.reason;
  }
  return ops;
}

Json model_json(const runner::Model& model) {
  const runner::ModelConfig& config = model.config();
  int64_t sparse = 0;
  for (const runner::LayerKind kind : config.layers) {
    sparse += kind == runner::LayerKind::kSparseAttention;
  }
  return {{"architecture", config.model_type},
          {"parameters", model.num_parameters()},
          {"weight_bytes", model.weight_bytes()},
          {"layers", config.num_hidden_layers},
          {"sparse_layers", sparse},
          {"hidden", config.hidden_size},
          {"query_heads", config.num_attention_heads},
          {"kv_heads", config.num_key_value_heads},
          {"head_dim", config.head_dim},
          {"index_dim", config.index_dim},
          {"block_size", config.block_size},
          {"top_k", config.top_k},
          {"vocabulary", config.vocab_size},
          {"max_tokens", config.max_position_embeddings},
          {"cache_bytes_per_token", cache_bytes_per_token(config)},
          {"ops", ops_json(model.context(), config)}};
}

std::string row(const std::string& name, const std::string& value) {
  return fmt::format("{:<10}{}\n", name, value);
}

std::string info_text(const Json& info) {
  const Json& machine = info.at("machine");
  std::string text = row("msa", machine.at("version"));
  const int threads = machine.at("threads");
  text +=
      row("machine",
          fmt::format("{}, {} thread{}, {} memory ({} free)", machine.at("cpu").get<std::string>(),
                      threads, threads == 1 ? "" : "s", human_bytes(machine.at("memory_bytes")),
                      human_bytes(machine.at("memory_available_bytes"))));
  for (const Json& backend : machine.at("backends")) {
    const bool usable = backend.at("usable");
    text += row("backend", usable ? "usable   " + backend.at("description").get<std::string>()
                                  : "not here " + backend.at("why_not").get<std::string>());
  }
  text += row("chosen", machine.at("backend"));
  const Json& model = info.at("model");
  if (model.is_null()) return text + row("model", info.at("why_no_model"));
  const auto number = [&](const char* name) { return model.at(name).get<int64_t>(); };
  text += row("model", fmt::format("{}, {:.2f} million parameters, {} in memory",
                                   model.at("architecture").get<std::string>(),
                                   static_cast<double>(number("parameters")) / 1e6,
                                   human_bytes(model.at("weight_bytes"))));
  text += row("", model.at("folder"));
  text += row("layers",
              fmt::format("{}, of which {} sparse; hidden {}, vocabulary {}", number("layers"),
                          number("sparse_layers"), number("hidden"), number("vocabulary")));
  text += row("heads", fmt::format("{} query heads on {} KV heads of {}; index dim {}",
                                   number("query_heads"), number("kv_heads"), number("head_dim"),
                                   number("index_dim")));
  text += row("selection", fmt::format("{} blocks of {} tokens for each query and group",
                                       number("top_k"), number("block_size")));
  const int64_t per_token = number("cache_bytes_per_token");
  text += row("context", fmt::format("{} tokens; caches take {} bytes a token, {} at 128K",
                                     short_count(number("max_tokens")), per_token,
                                     human_bytes(static_cast<double>(per_token) * 131072)));
  for (const auto& [op, support] : model.at("ops").items()) {
    text += row("op", fmt::format("{:<24}{}", op, support.get<std::string>()));
  }
  return text;
}

struct InfoArguments {
  std::string model;
  bool json = false;
};

int info(const InfoArguments& arguments) {
  Json json = {{"machine", machine_json()}, {"model", nullptr}};
  // Without --model a missing shipped model is a fact to tell and not an error.
  std::optional<std::filesystem::path> folder;
  try {
    folder = model_folder_of(arguments.model);
  } catch (const UsageError& error) {
    if (!arguments.model.empty()) throw;
    json["why_no_model"] = error.what();
  }
  if (folder) {
    json["model"] = model_json(*load_model(*folder));
    json["model"]["folder"] = folder->string();
  }
  print(arguments.json ? json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                       : info_text(json));
  return kSuccess;
}

}  // namespace

void add_info(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("info", "Show the machine, the backends and the model");
  const auto arguments = std::make_shared<InfoArguments>();
  add_model(*verb, arguments->model);
  verb->add_flag("--json", arguments->json, "The same as JSON");
  verb->footer("Examples:\n  msa info\n  msa info --model models/msa-mini --json");
  verb->callback([arguments, &chosen] { chosen = [arguments] { return info(*arguments); }; });
}

}  // namespace msa::cli
