#include "cli/picture/canvas.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace msa::cli {
namespace {

uint8_t mix_channel(uint8_t from, uint8_t to, double share) {
  return static_cast<uint8_t>(std::lround(from + (to - from) * share));
}

double distance_to_segment(Point p, Point a, Point b) {
  const double dx = b.x - a.x;
  const double dy = b.y - a.y;
  const double length_square = dx * dx + dy * dy;
  double along = 0;
  if (length_square > 0) {
    along = std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / length_square, 0.0, 1.0);
  }
  return std::hypot(p.x - a.x - along * dx, p.y - a.y - along * dy);
}

/// Pixels [left, right) x [top, bottom).
struct Box {
  int left;
  int top;
  int right;
  int bottom;
};

}  // namespace

Colour mix(Colour from, Colour to, double share) {
  const double bounded = std::clamp(share, 0.0, 1.0);
  return {mix_channel(from.red, to.red, bounded), mix_channel(from.green, to.green, bounded),
          mix_channel(from.blue, to.blue, bounded)};
}

Canvas::Canvas(int width, int height, Colour background)
    : width_(width),
      height_(height),
      pixels_(static_cast<size_t>(width) * static_cast<size_t>(height) * 3) {
  fill(0, 0, width, height, background);
}

Colour Canvas::at(int x, int y) const {
  const size_t pixel =
      (static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)) * 3;
  return {pixels_[pixel], pixels_[pixel + 1], pixels_[pixel + 2]};
}

void Canvas::blend(int x, int y, Colour colour, double coverage) {
  const Colour mixed = mix(at(x, y), colour, coverage);
  const size_t pixel =
      (static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)) * 3;
  pixels_[pixel] = mixed.red;
  pixels_[pixel + 1] = mixed.green;
  pixels_[pixel + 2] = mixed.blue;
}

void Canvas::fill(int x, int y, int width, int height, Colour colour) {
  for (int row = std::max(0, y); row < std::min(height_, y + height); ++row) {
    for (int column = std::max(0, x); column < std::min(width_, x + width); ++column) {
      blend(column, row, colour, 1);
    }
  }
}

void Canvas::triangle(Point a, Point b, Point c, Colour colour) {
  constexpr int kSamples = 4;  // a side of the grid inside a pixel
  const auto side = [](Point from, Point to, Point p) {
    return (to.x - from.x) * (p.y - from.y) - (to.y - from.y) * (p.x - from.x);
  };
  const auto least = [](double u, double v, double w) {
    return static_cast<int>(std::floor(std::min({u, v, w})));
  };
  const auto most = [](double u, double v, double w) {
    return static_cast<int>(std::ceil(std::max({u, v, w})));
  };
  for (int y = std::max(0, least(a.y, b.y, c.y)); y < std::min(height_, most(a.y, b.y, c.y)); ++y) {
    for (int x = std::max(0, least(a.x, b.x, c.x)); x < std::min(width_, most(a.x, b.x, c.x));
         ++x) {
      int inside = 0;
      for (int sample = 0; sample < kSamples * kSamples; ++sample) {
        const Point p = {x + (sample % kSamples + 0.5) / kSamples,
                         y + (sample / kSamples + 0.5) / kSamples};  // NOLINT: whole steps wanted
        const double ab = side(a, b, p);
        const double bc = side(b, c, p);
        const double ca = side(c, a, p);
        const bool all_right = ab >= 0 && bc >= 0 && ca >= 0;
        const bool all_left = ab <= 0 && bc <= 0 && ca <= 0;
        inside += all_right || all_left ? 1 : 0;
      }
      if (inside > 0) blend(x, y, colour, static_cast<double>(inside) / (kSamples * kSamples));
    }
  }
}

void Canvas::strokes(const std::vector<std::vector<Point>>& lines, double thickness,
                     Colour colour) {
  std::array<double, 4> bounds = {1e9, 1e9, -1e9, -1e9};
  for (const auto& line : lines) {
    for (const Point p : line) {
      bounds = {std::min(bounds[0], p.x), std::min(bounds[1], p.y), std::max(bounds[2], p.x),
                std::max(bounds[3], p.y)};
    }
  }
  const double margin = thickness / 2 + 1;
  const Box box = {std::max(0, static_cast<int>(std::floor(bounds[0] - margin))),
                   std::max(0, static_cast<int>(std::floor(bounds[1] - margin))),
                   std::min(width_, static_cast<int>(std::ceil(bounds[2] + margin))),
                   std::min(height_, static_cast<int>(std::ceil(bounds[3] + margin)))};
  for (int y = box.top; y < box.bottom; ++y) {
    for (int x = box.left; x < box.right; ++x) {
      const Point centre = {x + 0.5, y + 0.5};
      double nearest = 1e9;
      for (const auto& line : lines) {
        for (size_t n = 0; n < line.size(); ++n) {
          nearest = std::min(nearest, distance_to_segment(centre, line[n],
                                                          line[std::min(n + 1, line.size() - 1)]));
        }
      }
      const double coverage = std::clamp(thickness / 2 - nearest + 0.5, 0.0, 1.0);
      if (coverage > 0) blend(x, y, colour, coverage);
    }
  }
}

}  // namespace msa::cli
