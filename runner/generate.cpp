#include <algorithm>

#include "runner/files/fail.h"
#include "runner/runner.h"
#include "runner/sampler.h"

namespace msa::runner {

Generated generate(Decoder& decoder, const GenerateOptions& options,
                   const std::function<bool(int32_t token)>& on_token) {
  require(options.max_new_tokens >= 0, "generate",
          "max_new_tokens is wrong: got {}, allowed 0 or more", options.max_new_tokens);
  Sampler sampler(options.sampler);
  Generated result;
  while (static_cast<int64_t>(result.tokens.size()) < options.max_new_tokens) {
    if (!result.tokens.empty()) {
      if (decoder.length() == decoder.options().max_tokens) {
        result.reason = StopReason::kCacheFull;
        return result;
      }
      decoder.append({&result.tokens.back(), 1});
    }
    const int32_t token = sampler.next(decoder.logits());
    const auto& stops = options.stop_tokens;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      result.reason = StopReason::kStopToken;
      return result;
    }
    result.tokens.push_back(token);
    if (on_token && !on_token(token)) {
      result.reason = StopReason::kCallback;
      return result;
    }
  }
  result.reason = StopReason::kMaxNewTokens;
  return result;
}

}  // namespace msa::runner
