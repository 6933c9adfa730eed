// A folder with a small random model on the shipped tokenizer: every layer sparse, blocks of 64,
// K = 4. It knows nothing, and it is quick.
#pragma once

#include "tests/runner/fixture.h"

namespace msa::cli::testing {

inline void write_small_model(const runner::test::TempFolder& folder) {
  runner::test::Json config = runner::test::tiny_config();
  config["vocab_size"] = 4096;
  config["max_position_embeddings"] = 1 << 20;
  config["index_block_size"] = 64;
  config["index_topk_blocks"] = 4;
  for (auto& layer : config["layer_types"]) layer = "minimax_m3_sparse";
  runner::test::write_model(folder, config, runner::test::random_weights(config));
  folder.write("tokenizer.json", runner::test::read_whole(MSA_TOKENIZER));
}

}  // namespace msa::cli::testing
