// A small drawing board in memory: rectangles and strokes with smooth edges, in sRGB.
#pragma once

#include <cstdint>
#include <vector>

namespace msa::cli {

struct Colour {
  uint8_t red = 0;
  uint8_t green = 0;
  uint8_t blue = 0;
};

/// The colour a share of the way from one to the other; `share` in [0, 1].
Colour mix(Colour from, Colour to, double share);

struct Point {
  double x = 0;
  double y = 0;
};

class Canvas {
 public:
  Canvas(int width, int height, Colour background);

  int width() const { return width_; }
  int height() const { return height_; }
  /// Rows of red, green, blue from the top left.
  const std::vector<uint8_t>& pixels() const { return pixels_; }
  Colour at(int x, int y) const;

  /// What lies outside the canvas is cut off.
  void fill(int x, int y, int width, int height, Colour colour);
  void triangle(Point a, Point b, Point c, Colour colour);
  /// Lines with round ends through each list of points, drawn as one shape: where they cross, they
  /// are no darker.
  void strokes(const std::vector<std::vector<Point>>& lines, double thickness, Colour colour);

 private:
  void blend(int x, int y, Colour colour, double coverage);

  int width_;
  int height_;
  std::vector<uint8_t> pixels_;
};

}  // namespace msa::cli
