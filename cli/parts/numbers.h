// Numbers as people write them on a command line (32K, 1M) and as they read them in a table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace msa::cli {

/// A count with an optional suffix K (1024) or M (1024 * 1024), in [least, most]. `what` names the
/// option in the message: "--length: got 'x', allowed ...".
int64_t parse_count(std::string_view what, std::string_view text, int64_t least, int64_t most);
/// An unsigned 64-bit decimal number.
uint64_t parse_seed(std::string_view what, std::string_view text);
/// A finite number in [least, most].
double parse_real(std::string_view what, std::string_view text, double least, double most);

/// 32768 -> "32K", 1048576 -> "1M", 1000 -> "1000".
std::string short_count(int64_t count);
/// "850 ms", "12.3 s", "4 min 05 s".
std::string human_seconds(double seconds);
/// "512 B", "1.4 MB", "23.5 GB" (powers of 1000).
std::string human_bytes(double bytes);
/// `share` in [0, 1] as "98.5 %".
std::string percent(double share);

/// The Wilson score interval: where the true share lies with 95 % confidence, given `right` of
/// `total`. It behaves at 0 and at `total`, where the usual +-1.96 standard errors has no width.
struct Interval {
  double low = 0;
  double high = 1;
};
Interval wilson_interval(int64_t right, int64_t total);

}  // namespace msa::cli
