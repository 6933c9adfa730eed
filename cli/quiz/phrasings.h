// How facts are said and asked: templates with {key} and {value} (for chains of variables {name},
// {value} and {other}). One set is what training saw (training/tasks.json), one is held out
// (cli/heldout.json). The words that fill them are the tool's own (cli/words.json).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace msa::cli {

enum class FormKind { kKeyFirst, kValueFirst };

/// One way to state a fact and to ask for it.
struct Form {
  std::string id;
  FormKind kind = FormKind::kKeyFirst;
  std::string fact;      ///< with {key} and {value}
  std::string question;  ///< with {key}
};

/// One way to state a chain of variables: the first is assigned, the others copy.
struct ChainForm {
  std::string id;
  std::string assign;    ///< with {name} and {value}
  std::string copy;      ///< with {name} and {other}
  std::string question;  ///< with {name}
};

/// What training could fit; the tool refuses facts beyond it.
struct PhrasingLimits {
  int64_t fact_tokens = 0;
  int64_t value_tokens = 0;
};

struct Phrasings {
  std::vector<Form> forms;
  std::vector<Form> multivalue;
  std::vector<ChainForm> chains;
  PhrasingLimits limits;
  std::vector<std::string> train_words;  ///< every listed word that training saw
};

/// The words of the tool: never among Phrasings::train_words.
struct Words {
  std::vector<std::string> adjectives;
  std::vector<std::string> nouns;
  std::vector<std::string> attributes;
  std::vector<std::string> values;
};

/// From the files inside the program; parsed once.
const Phrasings& trained_phrasings();
const std::vector<Form>& heldout_forms();
const Words& words();

/// {"forms": [{"id", "fact", "question"}]} like cli/heldout.json. Throws UsageError that names file
/// and entry: no JSON, no forms, {key} or {value} not once in a fact, no {key} in a question.
std::vector<Form> read_forms(const std::string& path);

/// A template with its places filled, and where {value} came to stand (npos when it has none).
struct Filled {
  std::string text;
  size_t value_begin = std::string::npos;
};
/// `places` are (name without braces, text). Everything else in the template stays as it is.
Filled fill(std::string_view form,
            const std::vector<std::pair<std::string_view, std::string_view>>& places);

}  // namespace msa::cli
