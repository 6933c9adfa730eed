// A canvas as the bytes of a PNG file, by libpng.
#pragma once

#include <cstddef>
#include <vector>

#include "cli/picture/canvas.h"

namespace msa::cli {

/// 24 bits a pixel, without time or other chunks: the same canvas gives the same bytes.
std::vector<std::byte> png_bytes(const Canvas& canvas);

}  // namespace msa::cli
