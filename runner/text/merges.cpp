#include "runner/text/merges.h"

#include <queue>
#include <tuple>

namespace msa::runner {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

constexpr int64_t kNone = -1;

struct Symbol {
  int32_t id;  // -1 once it has been joined to the symbol before it
  int64_t previous;
  int64_t next;
};

/// "Join `left` at `at` with `right` after it"; void when either has changed since.
struct Candidate {
  int32_t rank;
  int64_t at;
  int32_t left;
  int32_t right;
  int32_t joined;
};

struct Later {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return std::tie(a.rank, a.at) > std::tie(b.rank, b.at);
  }
};

}  // namespace

bool Merges::add(int32_t left, int32_t right, int32_t joined) {
  const auto rank = static_cast<int32_t>(merges_.size());
  return merges_.emplace(pair_key(left, right), Merge{rank, joined}).second;
}

const Merges::Merge* Merges::find(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Merges::apply(std::span<const int32_t> symbols, std::vector<int32_t>& ids) const {
  const auto count = static_cast<int64_t>(symbols.size());
  std::vector<Symbol> list;
  list.reserve(symbols.size());
  for (int64_t i = 0; i < count; ++i) {
    list.push_back({symbols[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : kNone});
  }
  const auto at = [&list](int64_t i) -> Symbol& { return list[static_cast<size_t>(i)]; };

  std::priority_queue<Candidate, std::vector<Candidate>, Later> candidates;
  const auto consider = [&](int64_t left) {
    if (left == kNone || at(left).next == kNone) return;
    const int32_t a = at(left).id;
    const int32_t b = at(at(left).next).id;
    if (const Merge* merge = find(a, b)) {
      candidates.push({merge->rank, left, a, b, merge->joined});
    }
  };
  for (int64_t i = 0; i < count; ++i) consider(i);

  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol& left = at(best.at);
    if (left.id != best.left || left.next == kNone || at(left.next).id != best.right) continue;
    Symbol& right = at(left.next);
    left.id = best.joined;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNone) at(left.next).previous = best.at;
    consider(left.previous);
    consider(best.at);
  }
  for (const Symbol& symbol : list) {
    if (symbol.id != -1) ids.push_back(symbol.id);
  }
}

}  // namespace msa::runner
