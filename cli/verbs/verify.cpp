// msa verify: every backend against the conformance pack, one line a rule.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/parts/arguments.h"
#include "cli/parts/output.h"
#include "cli/parts/places.h"
#include "cli/parts/usage_error.h"
#include "cli/verbs/verbs.h"
#include "cli/verify/pack.h"
#include "cli/verify/verify.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

struct VerifyArguments {
  std::string backend = "all";
  std::vector<std::string> rules;
  std::string pack;
  bool json = false;
};

/// Rules of the given names; "index.*" stands for all that begin so.
std::vector<const PackRule*> chosen_rules(const Pack& pack, const std::vector<std::string>& names) {
  std::vector<const PackRule*> rules;
  const auto matches = [](const std::string& rule, const std::string& name) {
    if (!name.ends_with('*')) return rule == name;
    return rule.starts_with(name.substr(0, name.size() - 1));
  };
  for (const std::string& name : names) {
    bool found = false;
    for (const PackRule& rule : pack.rules()) found = found || matches(rule.name, name);
    if (!found) {
      throw UsageError(fmt::format("--rule: got '{}', allowed rules of {}, such as {} or index.*",
                                   name, pack.folder().string(), pack.rules().front().name));
    }
  }
  for (const PackRule& rule : pack.rules()) {
    bool wanted = names.empty();
    for (const std::string& name : names) wanted = wanted || matches(rule.name, name);
    if (wanted) rules.push_back(&rule);
  }
  return rules;
}

Json backend_json(const Pack& pack, Backend backend, bool required,
                  const std::vector<const PackRule*>& rules) {
  Json json = {{"backend", backend_name(backend)}, {"rules", Json::array()}};
  std::optional<Context> context;
  try {
    ContextOptions options;
    options.backend = backend;
    context.emplace(options);
  } catch (const Error& error) {
    if (required) throw;
    json["not_here"] = error.what();
    return json;
  }
  json["description"] = context->description();
  const Verification verification = verify(pack, *context, rules);
  for (const RuleOutcome& outcome : verification.outcomes) {
    json["rules"].push_back({{"rule", outcome.rule->name},
                             {"demand", outcome.rule->demand},
                             {"op", outcome.rule->op},
                             {"status", status_name(outcome.status)},
                             {"detail", outcome.detail}});
  }
  json["passed"] = verification.count(RuleStatus::kPass);
  json["failed"] = verification.count(RuleStatus::kFail);
  json["not_run"] =
      verification.count(RuleStatus::kNotRun) + verification.count(RuleStatus::kPartly);
  return json;
}

std::string backend_text(const Json& backend) {
  const std::string name = backend.at("backend");
  if (backend.contains("not_here")) {
    return fmt::format("{}: not here: {}\n", name, backend.at("not_here").get<std::string>());
  }
  std::string text = backend.at("description").get<std::string>() + "\n";
  for (const Json& rule : backend.at("rules")) {
    const std::string detail = rule.at("detail");
    text += fmt::format("  {:<8} {}{}{}\n", rule.at("status").get<std::string>(),
                        rule.at("rule").get<std::string>(), detail.empty() ? "" : ": ", detail);
  }
  return text + fmt::format("{}: {} passed, {} failed, {} not run\n", name,
                            backend.at("passed").get<int64_t>(),
                            backend.at("failed").get<int64_t>(),
                            backend.at("not_run").get<int64_t>());
}

int verify_pack(const VerifyArguments& arguments) {
  const std::filesystem::path folder =
      arguments.pack.empty() ? default_pack_folder() : std::filesystem::path(arguments.pack);
  const Pack pack = Pack::open(folder);
  const std::vector<const PackRule*> rules = chosen_rules(pack, arguments.rules);
  Json json = {{"pack", folder.string()},
               {"num_rules", pack.rules().size()},
               {"num_cases", pack.num_cases()},
               {"backends", Json::array()}};
  if (!arguments.json) {
    print(fmt::format("{}: {} rules, {} cases\n", folder.string(), pack.rules().size(),
                      pack.num_cases()));
  }
  bool failed = false;
  for (const Backend backend : {Backend::kReference, Backend::kCpu, Backend::kCuda}) {
    const bool named = arguments.backend == backend_name(backend);
    if (!named && arguments.backend != "all") continue;
    const Json result = backend_json(pack, backend, named, rules);
    failed = failed || result.value("failed", int64_t{0}) > 0;
    if (!arguments.json) print_now(backend_text(result));
    json["backends"].push_back(result);
  }
  if (arguments.json) {
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  return failed ? kRuleBroken : kSuccess;
}

}  // namespace

void add_verify(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("verify", "Check every backend against the conformance pack");
  const auto arguments = std::make_shared<VerifyArguments>();
  add_choice(*verb, "--backend", arguments->backend, {"all", "reference", "cpu", "cuda"},
             "The backend to check");
  verb->add_option("--rule", arguments->rules, "Only these rules; index.* means all that begin so")
      ->type_name("R");
  verb->add_option("--pack", arguments->pack, "Folder with index.json and *.safetensors")
      ->type_name("DIR")
      ->default_str("the project's, conformance/pack");
  verb->add_flag("--json", arguments->json, "The same as JSON, with what each rule demands");
  verb->footer(
      "Exit status 1 when a rule is broken. A rule whose op or type a backend lacks is listed as\n"
      "not run and never counted as passed.\n\n"
      "Examples:\n  msa verify\n  msa verify --backend cpu --rule index.tie_lower_id 'dense.*'");
  verb->callback(
      [arguments, &chosen] { chosen = [arguments] { return verify_pack(*arguments); }; });
}

}  // namespace msa::cli
