// PageAllocator: which physical pages hold which sequences, by counting holders.
#include <algorithm>
#include <limits>
#include <utility>

#include "core/check.h"
#include "msa/cache.h"

namespace msa {
namespace {

constexpr const char* kWhat = "pages";
constexpr int64_t kMaxLength = std::numeric_limits<int32_t>::max();  // what kv_lens can say

int64_t pages_of(int64_t length, int64_t page_size) { return (length + page_size - 1) / page_size; }

/// Room for `size` elements, doubling.
void make_room(std::vector<int32_t>& vector, int64_t size) {
  const auto wanted = static_cast<size_t>(size);
  if (wanted > vector.capacity()) vector.reserve(std::max(wanted, 2 * vector.capacity()));
}

}  // namespace

PageAllocator::PageAllocator(int64_t num_pages, int64_t page_size)
    : num_pages_(num_pages), page_size_(page_size) {
  core::check(num_pages >= 0 && num_pages <= std::numeric_limits<int32_t>::max(), kWhat,
              "num_pages is wrong: got {}, allowed 0 to {}", num_pages,
              std::numeric_limits<int32_t>::max());
  core::check(page_size >= 1 && page_size <= core::kMaxBlockSize, kWhat,
              "page_size is wrong: got {}, allowed 1 to {}", page_size, core::kMaxBlockSize);
}

const PageAllocator::State& PageAllocator::state(const char* what, Sequence sequence) const {
  const bool known = sequence >= 0 && sequence < static_cast<int64_t>(sequences_.size()) &&
                     sequences_[static_cast<size_t>(sequence)].live;
  core::check(known, kWhat, "{} of an unknown sequence: got {}, allowed one of create or fork",
              what, sequence);
  return sequences_[static_cast<size_t>(sequence)];
}

PageAllocator::State& PageAllocator::state(const char* what, Sequence sequence) {
  return const_cast<State&>(std::as_const(*this).state(what, sequence));
}

PageAllocator::Sequence PageAllocator::new_sequence() {
  if (free_sequences_.empty()) {
    free_sequences_.reserve(sequences_.size() + 1);  // so that release cannot fail
    sequences_.emplace_back();
    sequences_.back().live = true;
    return static_cast<Sequence>(sequences_.size()) - 1;
  }
  const Sequence sequence = free_sequences_.back();
  free_sequences_.pop_back();
  sequences_[static_cast<size_t>(sequence)].live = true;
  return sequence;
}

int32_t PageAllocator::take_page() {
  if (free_pages_.empty()) {
    holders_.push_back(1);
    return static_cast<int32_t>(holders_.size()) - 1;
  }
  const int32_t page = free_pages_.back();
  free_pages_.pop_back();
  holders_[static_cast<size_t>(page)] = 1;
  return page;
}

void PageAllocator::drop_pages(State& state, int64_t num_kept) {
  while (static_cast<int64_t>(state.pages.size()) > num_kept) {
    const int32_t page = state.pages.back();
    state.pages.pop_back();
    if (--holders_[static_cast<size_t>(page)] == 0) free_pages_.push_back(page);
  }
}

PageAllocator::Sequence PageAllocator::create() { return new_sequence(); }

PageAllocator::Sequence PageAllocator::fork(Sequence sequence, int64_t length) {
  const State& parent = state("fork", sequence);
  core::check(length >= 0 && length <= parent.length, kWhat,
              "fork goes past the sequence: got length {}, allowed 0 to {}", length, parent.length);
  std::vector<int32_t> pages(parent.pages.begin(),
                             parent.pages.begin() + pages_of(length, page_size_));
  const Sequence child = new_sequence();
  for (const int32_t page : pages) ++holders_[static_cast<size_t>(page)];
  sequences_[static_cast<size_t>(child)].pages = std::move(pages);
  sequences_[static_cast<size_t>(child)].length = length;
  return child;
}

void PageAllocator::release(Sequence sequence) {
  State& gone = state("release", sequence);
  make_room(free_pages_, num_touched_pages());
  drop_pages(gone, 0);
  gone = {};
  free_sequences_.push_back(sequence);
}

std::optional<PageCopy> PageAllocator::extend(Sequence sequence, int64_t length) {
  State& grown = state("extend", sequence);
  core::check(length >= grown.length, kWhat, "extend goes back: got length {}, allowed {} or more",
              length, grown.length);
  core::check(length <= kMaxLength, kWhat, "extend goes too far: got length {}, allowed {}", length,
              kMaxLength);
  // The next token falls into the last page unless that is full.
  const bool writes_last = length > grown.length && grown.length % page_size_ != 0;
  const bool copies = writes_last && holders_[static_cast<size_t>(grown.pages.back())] > 1;
  const int64_t wanted =
      pages_of(length, page_size_) - static_cast<int64_t>(grown.pages.size()) + (copies ? 1 : 0);
  if (wanted > num_free_pages()) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("[pages] no pages are left for {} tokens: got {} free, allowed at "
                            "least {}",
                            length, num_free_pages(), wanted));
  }
  // Memory first, so that nothing fails halfway.
  make_room(grown.pages, pages_of(length, page_size_));
  make_room(holders_, num_touched_pages() + wanted);
  std::optional<PageCopy> copy;
  if (copies) {
    const int32_t shared = grown.pages.back();
    copy = PageCopy{shared, take_page()};
    --holders_[static_cast<size_t>(shared)];
    grown.pages.back() = copy->to;
  }
  while (static_cast<int64_t>(grown.pages.size()) < pages_of(length, page_size_)) {
    grown.pages.push_back(take_page());
  }
  grown.length = length;
  return copy;
}

void PageAllocator::truncate(Sequence sequence, int64_t length) {
  State& cut = state("truncate", sequence);
  core::check(length >= 0 && length <= cut.length, kWhat,
              "truncate goes past the sequence: got length {}, allowed 0 to {}", length,
              cut.length);
  make_room(free_pages_, num_touched_pages());
  drop_pages(cut, pages_of(length, page_size_));
  cut.length = length;
}

int64_t PageAllocator::length(Sequence sequence) const { return state("length", sequence).length; }

std::span<const int32_t> PageAllocator::pages(Sequence sequence) const {
  return state("pages", sequence).pages;
}

int64_t PageAllocator::num_free_pages() const {
  return num_pages_ - num_touched_pages() + static_cast<int64_t>(free_pages_.size());
}

}  // namespace msa
