#include "cli/quiz/phrasings.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/parts/embedded.h"

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
