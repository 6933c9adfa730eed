#include "cli/picture/png.h"

#include <fmt/format.h>
#include <png.h>

#include <stdexcept>

namespace msa::cli {

std::vector<std::byte> png_bytes(const Canvas& canvas) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(canvas.width());
  image.height = static_cast<png_uint_32>(canvas.height());
  image.format = PNG_FORMAT_RGB;
  std::vector<std::byte> bytes;
  for (const bool measured : {false, true}) {
    png_alloc_size_t size = bytes.size();
    const int good = png_image_write_to_memory(&image, measured ? bytes.data() : nullptr, &size, 0,
                                               canvas.pixels().data(), 0, nullptr);
    if (good == 0) {
      throw std::runtime_error(fmt::format("cannot make a PNG: {}", image.message));
    }
    bytes.resize(size);
  }
  return bytes;
}

}  // namespace msa::cli
