#include "cli/quiz/document.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "cli/parts/numbers.h"
#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

/// How far from its depth a line may go to find a line end.
constexpr int64_t kReach = 256;
/// Tokens that an answer may have beyond those of the values that are expected.
constexpr int64_t kAnswerSlack = 8;

struct TokenLine {
  std::vector<int32_t> tokens;
  int64_t value_offset = 0;
};

class Planter {
 public:
  Planter(const LanguageModel& model, const Haystack& haystack, const Quiz& quiz,
          const DocumentOptions& options, Random& random)
      : model_(model), haystack_(haystack), quiz_(quiz), options_(options), random_(random) {
    line_end_ = model.encode("\n");
  }

  Document make() {
    for (const Line& line : quiz_.lines) lines_.push_back(encode_line(line));
    measure_questions();
    const int64_t room = document_.answer_tokens + document_.question_tokens;
    int64_t facts = 0;
    for (const TokenLine& line : lines_) facts += static_cast<int64_t>(line.tokens.size());
    // A line end before each fact may be needed too; and there must be some haystack.
    const int64_t ends = static_cast<int64_t>(lines_.size() * line_end_.size());
    const int64_t least = 1 + facts + ends + room + 1;
    if (options_.length < least) {
      throw UsageError(
          fmt::format("--length: got {} tokens, allowed at least {} for these facts: {} for the "
                      "facts, {} for the "
                      "longest question and answer, and a haystack around them",
                      options_.length, least, facts + ends, room));
    }
    const int64_t target = options_.length - room - 1;
    HaystackCut cut =
        haystack_.cut(options_.plant ? target - facts : target, options_.in_order, random_);
    document_.haystack_repeats = cut.repeats;
    document_.tokens = {model_.special().begin};
    if (options_.plant) {
      weave(cut.tokens);
    } else {
      document_.tokens.insert(document_.tokens.end(), cut.tokens.begin(), cut.tokens.end());
    }
    return std::move(document_);
  }

 private:
  TokenLine encode_line(const Line& line) const {
    TokenLine encoded{model_.encode(line.text + "\n"), 0};
    const std::string shown = shorten(printable(line.text), 60);
    const int64_t block = model_.shape().block_size;
    const PhrasingLimits& limits = trained_phrasings().limits;
    const int64_t most = std::min(block, limits.fact_tokens);
    const auto size = static_cast<int64_t>(encoded.tokens.size());
    if (size > most) {
      throw UsageError(fmt::format(
          "fact '{}': got {} tokens, allowed {} (a fact must fit into a block of {} tokens)", shown,
          size, most, block));
    }
    if (line.value_begin == std::string::npos) return encoded;
    size_t bytes = 0;
    for (int64_t i = 0; i < size; ++i) {
      bytes += model_.decode({&encoded.tokens[static_cast<size_t>(i)], 1}).size();
      if (bytes > line.value_begin) {
        encoded.value_offset = i;
        break;
      }
    }
    return encoded;
  }

  void measure_questions() {
    const int64_t most = trained_phrasings().limits.value_tokens;
    for (const Question& question : quiz_.questions) {
      int64_t answer = 0;
      for (const std::string& value : question.expected) {
        const auto tokens = static_cast<int64_t>(model_.encode(value).size());
        if (tokens > most) {
          throw UsageError(fmt::format(
              "value '{}' of '{}': got {} tokens, allowed {} (the longest that training had)",
              shorten(printable(value), 60), shorten(printable(question.name), 30), tokens, most));
        }
        answer += tokens + 1;
      }
      document_.answer_tokens = std::max(document_.answer_tokens, answer + kAnswerSlack);
      const auto tokens = static_cast<int64_t>(question_tokens(model_, question.text).size());
      document_.question_tokens = std::max(document_.question_tokens, tokens);
    }
  }

  bool starts_line(const std::vector<int32_t>& text, int64_t at) const {
    if (at == 0) return true;
    const std::string before = model_.decode({&text[static_cast<size_t>(at - 1)], 1});
    return !before.empty() && before.back() == '\n';
  }

  bool starts_character(const std::vector<int32_t>& text, int64_t at) const {
    if (at >= static_cast<int64_t>(text.size())) return true;
    const std::string after = model_.decode({&text[static_cast<size_t>(at)], 1});
    return after.empty() || (static_cast<uint8_t>(after[0]) & 0xC0) != 0x80;
  }

  /// The line start nearest to `wanted`, or `wanted` itself (moved to a whole character).
  int64_t place(const std::vector<int32_t>& text, int64_t wanted, int64_t limit) const {
    for (int64_t step = 0; step <= kReach; ++step) {
      if (wanted - step >= 0 && starts_line(text, wanted - step)) return wanted - step;
      if (wanted + step <= limit && starts_line(text, wanted + step)) return wanted + step;
    }
    while (wanted < limit && !starts_character(text, wanted)) ++wanted;
    return wanted;
  }

  /// The line of the quiz for each depth, from the top: any order, but groups keep theirs.
  std::vector<size_t> line_order() const {
    std::vector<size_t> order(quiz_.lines.size());
    std::iota(order.begin(), order.end(), size_t{0});
    random_.shuffle(order);
    for (const std::vector<size_t>& group : quiz_.in_order) {
      auto next = group.begin();
      for (size_t& line : order) {
        if (std::find(group.begin(), group.end(), line) != group.end()) line = *next++;
      }
    }
    return order;
  }

  void append(const std::vector<int32_t>& tokens) {
    document_.tokens.insert(document_.tokens.end(), tokens.begin(), tokens.end());
  }

  void weave(const std::vector<int32_t>& text) {
    const std::vector<size_t> order = line_order();
    // The last tokens may have to make room for line ends; nothing is planted among them.
    const auto limit = static_cast<int64_t>(text.size() - order.size() * line_end_.size());
    std::vector<int64_t> places;
    for (size_t i = 0; i < order.size(); ++i) {
      const double share =
          (static_cast<double>(i) + random_.uniform()) / static_cast<double>(order.size());
      places.push_back(
          place(text, static_cast<int64_t>(share * static_cast<double>(limit)), limit));
    }
    std::sort(places.begin(), places.end());
    // Line ends that have to be put in take the place of the last tokens of the haystack.
    auto kept = static_cast<int64_t>(text.size());
    for (const int64_t at : places) {
      if (!starts_line(text, at)) kept -= static_cast<int64_t>(line_end_.size());
    }
    document_.lines.resize(order.size());
    int64_t done = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      const int64_t at = places[i];
      document_.tokens.insert(document_.tokens.end(), text.begin() + done, text.begin() + at);
      done = at;
      if (!starts_line(text, places[i])) append(line_end_);
      const TokenLine& line = lines_[order[i]];
      Planted& planted = document_.lines[order[i]];
      planted.begin = static_cast<int64_t>(document_.tokens.size());
      planted.value_token = planted.begin + line.value_offset;
      append(line.tokens);
      planted.end = static_cast<int64_t>(document_.tokens.size());
    }
    document_.tokens.insert(document_.tokens.end(), text.begin() + done, text.begin() + kept);
    for (Planted& planted : document_.lines) {
      planted.block = planted.value_token / model_.shape().block_size;
      planted.depth =
          static_cast<double>(planted.value_token) / static_cast<double>(document_.tokens.size());
    }
  }

  const LanguageModel& model_;
  const Haystack& haystack_;
  const Quiz& quiz_;
  const DocumentOptions& options_;
  Random& random_;
  std::vector<int32_t> line_end_;
  std::vector<TokenLine> lines_;
  Document document_;
};

}  // namespace

Document make_document(const LanguageModel& model, const Haystack& haystack, const Quiz& quiz,
                       const DocumentOptions& options, Random& random) {
  return Planter(model, haystack, quiz, options, random).make();
}

}  // namespace msa::cli
