#include "cli/inspect/sheet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/parts/numbers.h"
#include "cli/picture/lettering.h"

namespace msa::cli {
namespace {

constexpr Colour kPaper = {251, 250, 247};
constexpr Colour kInk = {31, 35, 40};
constexpr Colour kGrey = {104, 109, 117};
constexpr Colour kVisible = {238, 235, 226};
constexpr Colour kPale = {196, 212, 233};
constexpr Colour kBlue = {59, 108, 178};
constexpr Colour kNight = {15, 37, 82};
constexpr Colour kPaleMark = {249, 205, 189};
constexpr Colour kMark = {224, 84, 47};
constexpr Colour kDarkMark = {120, 28, 8};

constexpr int kLeft = 132;
constexpr int kRight = 40;
constexpr int kGapAcross = 34;
constexpr int kGapDown = 46;
constexpr int kBottom = 74;
constexpr int kWantedPanel = 400;  // pixels a side, about
constexpr int kHeading = 162;      // with legend and titles of groups, without lines
constexpr int kLineHeight = 24;
constexpr int64_t kFewestTicks = 3;

/// `share` of the queries took the block. The root lets rare picks be seen.
Colour heat_colour(double share, bool marked) {
  const double level = std::sqrt(std::clamp(share, 0.0, 1.0));
  const Colour low = marked ? kPaleMark : kPale;
  const Colour middle = marked ? kMark : kBlue;
  const Colour high = marked ? kDarkMark : kNight;
  if (share <= 0) return marked ? mix(kVisible, kPaleMark, 0.55) : kVisible;
  return level < 0.5 ? mix(low, middle, level * 2) : mix(middle, high, level * 2 - 1);
}

class Sheet {
 public:
  Sheet(const Survey& survey, const SheetOptions& options)
      : survey_(survey),
        options_(options),
        bins_(static_cast<int>(survey.num_bins())),
        cell_(std::max(1, (kWantedPanel + bins_ / 2) / bins_)),
        panel_(bins_ * cell_),
        groups_(static_cast<int>(survey.options().num_groups)),
        top_(kHeading + kLineHeight * static_cast<int>(options.lines.size())),
        canvas_(width(), height(), kPaper) {}

  Canvas draw() {
    draw_heading();
    for (int group = 0; group < groups_; ++group) {
      text(panel_left(group), top_ - 18, fmt::format("group {}", group), {13, kInk, true});
    }
    int row = 0;
    for (const int64_t layer : options_.layers) draw_layer(layer, row++);
    draw_block_axis(row);
    return std::move(canvas_);
  }

 private:
  /// Wide enough for the heading, however few groups there are.
  int width() const {
    const int panels = kLeft + groups_ * panel_ + (groups_ - 1) * kGapAcross + kRight;
    double widest = text_width(options_.title, {.height = 26, .colour = kInk, .bold = true});
    for (const std::string& line : options_.lines) {
      widest = std::max(widest, text_width(line, {.height = 12, .colour = kGrey}));
    }
    return std::max({panels, static_cast<int>(widest) + 2 * kRight, 720});
  }
  int height() const {
    const int rows = static_cast<int>(options_.layers.size());
    return top_ + rows * panel_ + (rows - 1) * kGapDown + kBottom;
  }
  int panel_left(int group) const { return kLeft + group * (panel_ + kGapAcross); }
  int panel_top(int row) const { return top_ + row * (panel_ + kGapDown); }

  void text(double x, double baseline, const std::string& words, const TextStyle& style) {
    draw_text(canvas_, x, baseline, words, style);
  }

  void draw_heading() {
    text(kRight, 58, options_.title, {.height = 26, .colour = kInk, .bold = true});
    double y = 90;
    for (const std::string& line : options_.lines) {
      text(kRight, y, line, {.height = 12, .colour = kGrey});
      y += kLineHeight;
    }
    draw_legend(static_cast<int>(y) - 6);
  }

  /// A ramp of colours with its ends named, and what orange means.
  void draw_legend(int y) {
    constexpr int kRamp = 160;
    const TextStyle style = {.height = 10, .colour = kGrey};
    const std::string low = "taken by no query";
    double x = kRight;
    text(x, y + 12, low, style);
    x += text_width(low, style) + 10;
    for (int n = 0; n < kRamp; ++n) {
      const double level = static_cast<double>(n) / (kRamp - 1);
      canvas_.fill(static_cast<int>(x) + n, y, 1, 14, heat_colour(level * level, false));
    }
    x += kRamp + 10;
    const std::string high = "by every query";
    text(x, y + 12, high, style);
    x += text_width(high, style) + 34;
    if (!options_.marked_block) return;
    canvas_.triangle({x, y + 2.0}, {x + 11, y + 2.0}, {x + 5.5, y + 12.0}, kMark);
    x += 19;
    for (int n = 0; n < 40; ++n) {
      const double level = n / 39.0;
      canvas_.fill(static_cast<int>(x) + n, y, 1, 14, heat_colour(level * level, true));
    }
    text(x + 50, y + 12, "the block with the fact", style);
  }

  void draw_layer(int64_t layer, int row) {
    const int top = panel_top(row);
    text(kLeft - 14, top + 13, fmt::format("layer {}", layer),
         {.height = 13, .colour = kInk, .bold = true, .anchor = Anchor::kRight});
    for (const int64_t tick : ticks()) {
      const int y = top + pixels_of(tick);
      text(kLeft - 14, y + (y == top + panel_ ? 0 : 5), short_count(tick),
           {.height = 10, .colour = kGrey, .anchor = Anchor::kRight});
      canvas_.fill(kLeft - 9, y - 1, 5, 1, kGrey);
    }
    if (row == 0) {
      text(kLeft - 14, top + 36, "query",
           {.height = 10, .colour = kGrey, .anchor = Anchor::kRight});
    }
    const std::vector<GroupSurvey>& groups = survey_.layers().at(layer);
    for (int group = 0; group < groups_; ++group) {
      draw_panel(groups[static_cast<size_t>(group)], panel_left(group), top);
    }
  }

  void draw_panel(const GroupSurvey& survey, int left, int top) {
    const int64_t marked = options_.marked_block.value_or(-1);
    const int marked_bin = marked < 0 ? -1 : static_cast<int>(marked / survey_.blocks_per_bin());
    for (int query = 0; query < bins_; ++query) {
      const auto queries = static_cast<double>(survey_.queries_in_bin(query));
      for (int block = 0; block <= query; ++block) {
        const size_t cell =
            static_cast<size_t>(query) * static_cast<size_t>(bins_) + static_cast<size_t>(block);
        const double share = survey.heat[cell] / queries;
        canvas_.fill(left + block * cell_, top + query * cell_, cell_, cell_,
                     heat_colour(share, block == marked_bin));
      }
    }
    if (marked_bin >= 0) {
      const double x = left + (marked_bin + 0.5) * cell_;
      canvas_.triangle({x - 5.5, top - 12.0}, {x + 5.5, top - 12.0}, {x, top - 3.0}, kMark);
    }
    draw_figures(survey, left + panel_, top);
  }

  /// In the corner where nothing is visible.
  void draw_figures(const GroupSurvey& survey, int right, int top) {
    const auto line = [&](int number, const std::string& name, const std::string& value) {
      const double baseline = top + 14 + 20.0 * number;
      const TextStyle style = {.height = 10, .colour = kInk, .anchor = Anchor::kRight};
      text(right, baseline, value, style);
      text(right - 52, baseline, name, {.height = 10, .colour = kGrey, .anchor = Anchor::kRight});
    };
    const auto two_digits = [](const Mean& mean) {
      return mean.empty() ? std::string("-") : fmt::format("{:.2f}", mean.value());
    };
    line(0, "score recall", two_digits(survey.recalls[1]));
    line(1, "block recall", two_digits(survey.recalls[0]));
    line(2, "neighbours", two_digits(survey.jaccard));
    line(3, "first block", two_digits(survey.first_block));
  }

  /// Where the token stands inside a panel, across and down.
  int pixels_of(int64_t token) const {
    return static_cast<int>(token * cell_ /
                            (survey_.blocks_per_bin() * survey_.options().block_size));
  }
  /// Round positions above 0.
  std::vector<int64_t> ticks() const {
    int64_t step = 1;
    while (step * 2 * kFewestTicks <= survey_.options().num_tokens) step *= 2;
    std::vector<int64_t> positions;
    for (int64_t tick = step; pixels_of(tick) <= panel_; tick += step) positions.push_back(tick);
    return positions;
  }

  void draw_block_axis(int rows) {
    const int y = panel_top(rows) - kGapDown + 8;
    for (int group = 0; group < groups_; ++group) {
      const int left = panel_left(group);
      text(left, y + 18, "0", {.height = 10, .colour = kGrey});
      for (const int64_t tick : ticks()) {
        const int x = pixels_of(tick);
        canvas_.fill(left + std::min(x, panel_ - 1), y - 4, 1, 5, kGrey);
        text(left + x, y + 18, short_count(tick),
             {.height = 10,
              .colour = kGrey,
              .anchor = x == panel_ ? Anchor::kRight : Anchor::kMiddle});
      }
      text(left + panel_ / 2.0, y + 42, "block, by its first token",
           {.height = 10, .colour = kGrey, .anchor = Anchor::kMiddle});
    }
  }

  const Survey& survey_;
  const SheetOptions& options_;
  int bins_;
  int cell_;
  int panel_;
  int groups_;
  int top_;
  Canvas canvas_;
};

}  // namespace

Canvas draw_sheet(const Survey& survey, const SheetOptions& options) {
  return Sheet(survey, options).draw();
}

}  // namespace msa::cli
