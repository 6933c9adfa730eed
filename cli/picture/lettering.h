// Text on a canvas, in letters of the project's own: each is a few strokes on a grid of its own
// size, so that any size is sharp and no font has to be found on the machine.
#pragma once

#include <string_view>

#include "cli/picture/canvas.h"

namespace msa::cli {

enum class Anchor { kLeft, kMiddle, kRight };

struct TextStyle {
  double height = 12;  ///< of a capital letter, in pixels
  Colour colour;
  bool bold = false;
  Anchor anchor = Anchor::kLeft;
};

/// Pixels that the text is wide. Characters without a letter are drawn as an empty box.
double text_width(std::string_view text, const TextStyle& style);
/// With the feet of the letters at `baseline`.
void draw_text(Canvas& canvas, double x, double baseline, std::string_view text,
               const TextStyle& style);

}  // namespace msa::cli
