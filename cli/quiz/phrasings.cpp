#include "cli/quiz/phrasings.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/parts/embedded.h"
#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

std::vector<Form> forms_of(const Json& list) {
  std::vector<Form> forms;
  for (const Json& entry : list) {
    Form form;
    form.id = entry.at("id");
    form.fact = entry.at("fact");
    form.question = entry.at("question");
    const bool value_first = form.fact.find("{value}") < form.fact.find("{key}");
    form.kind = value_first ? FormKind::kValueFirst : FormKind::kKeyFirst;
    forms.push_back(std::move(form));
  }
  return forms;
}

Phrasings read_trained() {
  const Json tasks = Json::parse(embedded_tasks());
  Phrasings phrasings;
  phrasings.forms = forms_of(tasks.at("forms"));
  phrasings.multivalue = forms_of(tasks.at("multivalue"));
  for (const Json& entry : tasks.at("tracking")) {
    phrasings.chains.push_back(
        {entry.at("id"), entry.at("assign"), entry.at("copy"), entry.at("question")});
  }
  phrasings.limits.fact_tokens = tasks.at("limits").at("fact_tokens");
  phrasings.limits.value_tokens = tasks.at("limits").at("value_tokens");
  for (const Json& list : tasks.at("train_words")) {
    for (const Json& word : list) phrasings.train_words.push_back(word);
  }
  return phrasings;
}

Words read_words() {
  const Json lists = Json::parse(embedded_words());
  return {lists.at("adjectives"), lists.at("nouns"), lists.at("attributes"), lists.at("values")};
}

}  // namespace

const Phrasings& trained_phrasings() {
  static const Phrasings phrasings = read_trained();
  return phrasings;
}

const std::vector<Form>& heldout_forms() {
  static const std::vector<Form> forms = forms_of(Json::parse(embedded_heldout()).at("forms"));
  return forms;
}

const Words& words() {
  static const Words lists = read_words();
  return lists;
}

std::vector<Form> read_forms(const std::string& path) {
  const Json json = Json::parse(read_text_file(path), nullptr, false);
  const std::string wanted = R"({"forms": [{"id", "fact", "question"}, ...]})";
  if (!json.is_object() || !json.contains("forms") || !json["forms"].is_array() ||
      json["forms"].empty()) {
    throw UsageError(fmt::format("{}: got no phrasings, allowed {}", path, wanted));
  }
  for (const Json& entry : json["forms"]) {
    for (const char* field : {"id", "fact", "question"}) {
      if (entry.is_object() && entry.contains(field) && entry[field].is_string()) continue;
      throw UsageError(
          fmt::format("{}: got an entry without the text '{}', allowed {}", path, field, wanted));
    }
  }
  std::vector<Form> forms = forms_of(json["forms"]);
  for (const Form& form : forms) {
    for (const char* place : {"{key}", "{value}"}) {
      const size_t first = form.fact.find(place);
      if (first != std::string::npos && form.fact.find(place, first + 1) == std::string::npos) {
        continue;
      }
      throw UsageError(fmt::format("{}: got fact '{}', allowed with {} once", path,
                                   shorten(printable(form.fact), 60), place));
    }
    if (form.question.find("{key}") == std::string::npos) {
      throw UsageError(fmt::format("{}: got question '{}', allowed with {{key}}", path,
                                   shorten(printable(form.question), 60)));
    }
  }
  return forms;
}

Filled fill(std::string_view form,
            const std::vector<std::pair<std::string_view, std::string_view>>& places) {
  Filled filled;
  while (!form.empty()) {
    const auto here = std::find_if(places.begin(), places.end(), [&](const auto& place) {
      return form.size() >= place.first.size() + 2 && form[0] == '{' &&
             form.substr(1, place.first.size()) == place.first &&
             form[place.first.size() + 1] == '}';
    });
    if (here == places.end()) {
      filled.text += form[0];
      form.remove_prefix(1);
      continue;
    }
    if (here->first == "value") filled.value_begin = filled.text.size();
    filled.text += here->second;
    form.remove_prefix(here->first.size() + 2);
  }
  return filled;
}

}  // namespace msa::cli
