// The letters. A stroke is a list of points, each two digits: x from the left, y from the top of a
// capital (0) to the baseline (9) and below (a, b, c). "l" joins the points by lines, "s" bends a
// curve toward them from the first to the last, "o" closes the curve.
#include "cli/picture/lettering.h"

#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <vector>

namespace msa::cli {
namespace {

using Line = std::vector<Point>;

struct Letter {
  char character;
  double width;
  const char* strokes;
};

constexpr double kCapital = 9;  // units from the baseline to the top of a capital
constexpr double kGap = 2.6;    // between letters
constexpr int kCurveSteps = 6;
constexpr Letter kUnknown = {'\0', 5, "l0050590900"};

constexpr std::array<Letter, 83> kLetters = {{
    {' ', 2, ""},
    {'0', 6, "o00606909"},
    {'1', 4, "l023039 l1949"},
    {'2', 6, "s020060650809 l0969"},
    {'3', 6, "s0100606424 s2464690908"},
    {'4', 6, "l49400666"},
    {'5', 6, "l601004 s042363691908"},
    {'6', 6, "s500006 o03636909"},
    {'7', 6, "l006029"},
    {'8', 6, "o10505414 o04646909"},
    {'9', 6, "o00606606 s636919"},
    {'a', 5, "o03535909 l5359"},
    {'b', 5, "l0009 o03535909"},
    {'c', 5, "s53030959"},
    {'d', 5, "o03535909 l5059"},
    {'e', 5, "l0656 s5653030949"},
    {'f', 3, "s401015 l1519 l0343"},
    {'g', 5, "o03535909 l535a s5a5c1c"},
    {'h', 5, "l0009 s06035356 l5659"},
    {'i', 1, "l0309 l0000"},
    {'j', 2, "l131b s1b1c0c l1010"},
    {'k', 5, "l0009 l5306 l2459"},
    {'l', 2, "s00070929"},
    {'m', 8, "l0309 s06034346 l4649 s46438386 l8689"},
    {'n', 5, "l0309 s06035356 l5659"},
    {'o', 5, "o03535909"},
    {'p', 5, "l030c o03535909"},
    {'q', 5, "l535c o03535909"},
    {'r', 3, "l0309 s060333"},
    {'s', 4, "s430306464909"},
    {'t', 3, "l0343 s101949"},
    {'u', 5, "l0306 s06095956 l5359"},
    {'v', 5, "l032953"},
    {'w', 8, "l0329436983"},
    {'x', 5, "l0359 l5309"},
    {'y', 5, "l0329 l530c"},
    {'z', 5, "l03530959"},
    {'A', 6, "l093069 l1656"},
    {'B', 5, "l0009 s00606404 s04646909"},
    {'C', 6, "s60000969"},
    {'D', 6, "l0009 s00606909"},
    {'E', 5, "l50000959 l0444"},
    {'F', 5, "l500009 l0444"},
    {'G', 6, "s60000969 l6965 l6535"},
    {'H', 6, "l0009 l6069 l0464"},
    {'I', 1, "l0009"},
    {'J', 4, "s40490907"},
    {'K', 6, "l0009 l6005 l2469"},
    {'L', 5, "l000959"},
    {'M', 8, "l0900468089"},
    {'N', 6, "l09006960"},
    {'O', 7, "o00707909"},
    {'P', 5, "l0009 s00606505"},
    {'Q', 7, "o00707909 l477a"},
    {'R', 6, "l0009 s00606505 l3569"},
    {'S', 6, "s600004656909"},
    {'T', 6, "l0060 l3039"},
    {'U', 6, "l0005 s05096965 l6560"},
    {'V', 6, "l003960"},
    {'W', 8, "l0029426980"},
    {'X', 6, "l0069 l6009"},
    {'Y', 6, "l003460 l3439"},
    {'Z', 6, "l00600969"},
    {'.', 0, "l0909"},
    {',', 1, "l190b"},
    {':', 0, "l0404 l0909"},
    {';', 1, "l1414 l190b"},
    {'!', 0, "l0006 l0909"},
    {'?', 5, "s0100505426 l2929"},
    {'-', 4, "l0646"},
    {'_', 5, "l0a5a"},
    {'+', 4, "l0646 l2428"},
    {'=', 4, "l0545 l0747"},
    {'/', 4, "l400a"},
    {'%', 7, "l7009 o00202303 o56767959"},
    {'(', 2, "s20000b2b"},
    {')', 2, "s00202b0b"},
    {'\'', 0, "l0002"},
    {'"', 2, "l0002 l2022"},
    {'<', 4, "l430649"},
    {'>', 4, "l034609"},
    {'[', 2, "l20000b2b"},
    {']', 2, "l00202b0b"},
}};

const Letter& letter_of(char character) {
  const auto found =
      std::find_if(kLetters.begin(), kLetters.end(),
                   [character](const Letter& letter) { return letter.character == character; });
  return found == kLetters.end() ? kUnknown : *found;
}

double coordinate(char digit) { return digit >= 'a' ? digit - 'a' + 10 : digit - '0'; }

Point half_way(Point a, Point b) { return {(a.x + b.x) / 2, (a.y + b.y) / 2}; }

/// The curve from one point to another that leaves and arrives in the direction of a third.
void add_curve(Line& line, Point from, Point toward, Point to) {
  for (int step = 0; step <= kCurveSteps; ++step) {
    const double t = static_cast<double>(step) / kCurveSteps;
    const Point near = {from.x + t * (toward.x - from.x), from.y + t * (toward.y - from.y)};
    const Point far = {toward.x + t * (to.x - toward.x), toward.y + t * (to.y - toward.y)};
    line.push_back({near.x + t * (far.x - near.x), near.y + t * (far.y - near.y)});
  }
}

Line bend(const Line& points, bool closed) {
  Line line;
  const size_t count = points.size();
  if (closed) {
    for (size_t n = 0; n < count; ++n) {
      add_curve(line, half_way(points[n], points[(n + 1) % count]), points[(n + 1) % count],
                half_way(points[(n + 1) % count], points[(n + 2) % count]));
    }
    return line;
  }
  for (size_t n = 1; n + 1 < count; ++n) {
    add_curve(line, n == 1 ? points[0] : half_way(points[n - 1], points[n]), points[n],
              n + 2 == count ? points[count - 1] : half_way(points[n], points[n + 1]));
  }
  return line;
}

std::vector<Line> lines_of(const Letter& letter) {
  std::vector<Line> lines;
  std::istringstream words(letter.strokes);
  for (std::string word; words >> word;) {
    Line points;
    for (size_t n = 1; n + 1 < word.size(); n += 2) {
      points.push_back({coordinate(word[n]), coordinate(word[n + 1])});
    }
    lines.push_back(word[0] == 'l' ? points : bend(points, word[0] == 'o'));
  }
  return lines;
}

}  // namespace

double text_width(std::string_view text, const TextStyle& style) {
  double units = 0;
  for (const char character : text) units += letter_of(character).width + kGap;
  return text.empty() ? 0 : (units - kGap) * style.height / kCapital;
}

void draw_text(Canvas& canvas, double x, double baseline, std::string_view text,
               const TextStyle& style) {
  const double unit = style.height / kCapital;
  const double thickness = style.height * (style.bold ? 0.19 : 0.115);
  if (style.anchor == Anchor::kMiddle) x -= text_width(text, style) / 2;
  if (style.anchor == Anchor::kRight) x -= text_width(text, style);
  for (const char character : text) {
    const Letter& letter = letter_of(character);
    std::vector<Line> lines = lines_of(letter);
    for (Line& line : lines) {
      for (Point& p : line) p = {x + p.x * unit, baseline + (p.y - kCapital) * unit};
    }
    if (!lines.empty()) canvas.strokes(lines, thickness, style.colour);
    x += (letter.width + kGap) * unit;
  }
}

}  // namespace msa::cli
