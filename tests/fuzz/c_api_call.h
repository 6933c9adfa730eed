// One call of the C API with arguments that may be anything, and memory that is exactly what they
// say: a sanitizer sees the first byte read or written beside it.
//
// A call starts valid; mutate() then breaks some of its fields. back() allocates what each view
// reaches, from its lowest to its highest element, and fills it. Views that reach too far get no
// memory: then the op is only asked for its workspace, which must look at shapes alone. After the
// call: a status that exists, a message with every refusal, and nothing written by a refused call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "fuzz/byte_reader.h"
#include "msa/c_api.h"

namespace msa::fuzz {

/// What lies in a view.
enum class Content {
  kFloats,
  kOutput,   // remembered, to see what a refused call has written
  kNumbers,  // int32, given by the call
};

struct View {
  msa_tensor* tensor;
  Content content;
  std::vector<int32_t> numbers = {};  // in row-major order of the view's axes
};

class Call {
 public:
  explicit Call(ByteReader& bytes) : bytes_(bytes) {}

  void add(msa_tensor& tensor, Content content, std::vector<int32_t> numbers = {}) {
    views_.push_back({&tensor, content, std::move(numbers)});
  }
  void add(int64_t& field) { longs_.push_back(&field); }
  void add(int32_t& field) { ints_.push_back(&field); }
  void add(float& field) { floats_.push_back(&field); }

  /// Breaks a few fields, or none.
  void mutate();
  /// Largest of the numbers that lie in a view, at least 0.
  double largest(const msa_tensor& tensor) const;
  /// False when a view is too large to be given memory, or the work too much to be done.
  bool back(double work);
  /// The sum of all outputs' bytes as they are now.
  uint64_t output_hash() const;
  /// Puts outputs back to what they were before the call.
  void restore_outputs();

 private:
  struct Block {
    std::unique_ptr<unsigned char[]> bytes;
    std::vector<unsigned char> before;  // of outputs
    size_t size = 0;
  };
  bool back_view(View& view);
  void fill(const View& view, Block& block, int64_t lowest);

  ByteReader& bytes_;
  std::vector<View> views_;
  std::vector<int64_t*> longs_;
  std::vector<int32_t*> ints_;
  std::vector<float*> floats_;
  std::vector<Block> blocks_;
};

/// The struct of a caller whose header is newer, or who forgot to say its size.
template <typename Args>
struct Padded {
  Args args = {};
  uint64_t newer[4] = {};

  Padded() { args.struct_size = sizeof(Args); }
  void mutate(ByteReader& bytes) {
    if (!bytes.one_in(16)) return;
    static constexpr uint64_t kSizes[] = {0,
                                          sizeof(Args) - 8,
                                          sizeof(Args) + 8,
                                          sizeof(Args) + 32,
                                          (1 << 16) + 1,
                                          std::numeric_limits<uint64_t>::max()};
    args.struct_size = kSizes[bytes.in_range(0, std::size(kSizes) - 1)];
    newer[3] = bytes.take<uint8_t>();
  }
};

/// Ends the program, as a crash does, when a promise of the API is broken.
void require(bool ok, const char* promise);
/// The status is one that exists, and a failure left a message.
void check_status(msa_status status);

/// Scratch memory of exactly `bytes`.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : memory_(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {}
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return memory_; }

 private:
  void* memory_;
};

}  // namespace msa::fuzz
