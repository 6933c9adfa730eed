// config.json: whatever the text, it is refused by msa::Error or gives sizes that the runner can
// multiply and divide by.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "msa/error.h"
#include "runner/config.h"

extern "C" int LLVMFuzzerTestOneInput(  // NOLINT(readability-identifier-naming): libFuzzer's name
    const uint8_t* data, size_t size) {
  try {
    const msa::runner::ModelConfig config =
        msa::runner::parse_config({reinterpret_cast<const char*>(data), size});
    const bool usable = config.num_key_value_heads > 0 && config.block_size > 0 &&
                        config.num_attention_heads % config.num_key_value_heads == 0 &&
                        config.rotary_dim % 2 == 0 && config.rotary_dim <= config.head_dim &&
                        static_cast<int64_t>(config.layers.size()) == config.num_hidden_layers;
    if (!usable) std::abort();
  } catch (const msa::Error&) {
    return 0;
  }
  return 0;
}
