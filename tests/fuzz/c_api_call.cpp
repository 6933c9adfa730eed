#include "fuzz/c_api_call.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace msa::fuzz {
namespace {

constexpr double kMostElements = 1 << 15;  // of a view that gets memory
constexpr double kMostReach = 1 << 16;
constexpr double kMostWork = 1 << 22;  // multiplications; the reference does some 1e7 a second here

size_t element_bytes(msa_dtype dtype) {
  return dtype == MSA_BFLOAT16 || dtype == MSA_FLOAT16 ? 2 : 4;
}

float odd_float(uint64_t random) {
  static constexpr float kOdd[] = {0.0f,   -0.0f,    1e30f,     -1e30f, 3e38f,
                                   1e-40f, INFINITY, -INFINITY, NAN};
  if (random % 64 == 0) return kOdd[random / 64 % std::size(kOdd)];
  return static_cast<float>(static_cast<int>(random >> 8 & 255) - 128) / 64;
}

}  // namespace

void require(bool ok, const char* promise) {
  if (ok) return;
  std::fprintf(stderr, "broken promise: %s\nlast error: %s\n", promise, msa_last_error());
  std::abort();
}

void check_status(msa_status status) {
  require(status >= MSA_OK && status <= MSA_OUT_OF_MEMORY, "a status that arguments can cause");
  if (status != MSA_OK) require(msa_last_error()[0] == '[', "a message that names the op");
}

void Call::mutate() {
  for (int64_t left = bytes_.in_range(0, 4); left > 0; --left) {
    switch (bytes_.in_range(0, 5)) {
      case 0:
      case 1: {  // an extent or a stride
        if (views_.empty()) break;
        msa_tensor& tensor =
            *views_[static_cast<size_t>(bytes_.in_range(0, 31)) % views_.size()].tensor;
        const int64_t axis = bytes_.in_range(0, 3);
        int64_t& number = (bytes_.one_in(2) ? tensor.shape : tensor.stride)[axis];
        number = bytes_.instead_of(number);
        break;
      }
      case 2: {  // type, rank, presence
        if (views_.empty()) break;
        msa_tensor& tensor =
            *views_[static_cast<size_t>(bytes_.in_range(0, 31)) % views_.size()].tensor;
        const int64_t what = bytes_.in_range(0, 3);
        if (what == 0) tensor.dtype = static_cast<msa_dtype>(bytes_.in_range(-1, 4));
        if (what == 1) tensor.rank = static_cast<int32_t>(bytes_.turning_point());
        if (what >= 2) tensor = {};
        break;
      }
      case 3: {  // an entry of an integer array: often just past the largest
        std::vector<View*> arrays;
        for (View& view : views_) {
          if (!view.numbers.empty()) arrays.push_back(&view);
        }
        if (arrays.empty()) break;
        View& view = *arrays[static_cast<size_t>(bytes_.in_range(0, 7)) % arrays.size()];
        const auto at = static_cast<size_t>(bytes_.in_range(0, 255)) % view.numbers.size();
        const int32_t right = bytes_.one_in(2)
                                  ? view.numbers[at]
                                  : *std::max_element(view.numbers.begin(), view.numbers.end());
        view.numbers[at] = static_cast<int32_t>(bytes_.instead_of(right));
        break;
      }
      case 4:
        if (!longs_.empty()) {
          int64_t& field = *longs_[static_cast<size_t>(bytes_.in_range(0, 7)) % longs_.size()];
          field = bytes_.instead_of(field);
        }
        break;
      default:
        if (bytes_.one_in(2) && !floats_.empty()) {
          *floats_[static_cast<size_t>(bytes_.in_range(0, 7)) % floats_.size()] =
              bytes_.take<float>();
        } else if (!ints_.empty()) {
          *ints_[static_cast<size_t>(bytes_.in_range(0, 7)) % ints_.size()] =
              static_cast<int32_t>(bytes_.turning_point());
        }
    }
  }
}

double Call::largest(const msa_tensor& tensor) const {
  double largest = 0;
  for (const View& view : views_) {
    if (view.tensor != &tensor) continue;
    for (const int32_t number : view.numbers) {
      largest = std::max(largest, static_cast<double>(number));
    }
  }
  return largest;
}

bool Call::back(double work) {
  bool all = work <= kMostWork;
  for (View& view : views_) all = back_view(view) && all;
  if (bytes_.one_in(16)) {  // no data, or none that is aligned
    msa_tensor& tensor =
        *views_[static_cast<size_t>(bytes_.in_range(0, 31)) % views_.size()].tensor;
    tensor.data = bytes_.one_in(2) ? nullptr : static_cast<char*>(tensor.data) + 1;
  }
  return all;
}

bool Call::back_view(View& view) {
  msa_tensor& tensor = *view.tensor;
  static unsigned char nothing[64];
  tensor.data = nothing;  // of views that no op accepts
  if (tensor.rank < 1 || tensor.rank > 4) return true;
  double elements = 1;
  double low = 0;
  double high = 0;
  bool empty = false;
  for (int32_t axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] < 0) return true;
    empty = empty || tensor.shape[axis] == 0;
    const double extent = std::max(1.0, static_cast<double>(tensor.shape[axis]));
    elements *= extent;
    const double last = (extent - 1) * static_cast<double>(tensor.stride[axis]);
    (last < 0 ? low : high) += last;
  }
  if (elements > kMostElements || high - low >= kMostReach) return false;
  const size_t count = empty ? 0 : static_cast<size_t>(high - low) + 1;
  Block block;
  block.size = count * element_bytes(tensor.dtype);
  block.bytes.reset(new unsigned char[block.size]);
  const auto lowest = static_cast<int64_t>(low);
  if (count > 0) fill(view, block, lowest);
  tensor.data =
      block.bytes.get() - (empty ? 0 : lowest * static_cast<int64_t>(element_bytes(tensor.dtype)));
  blocks_.push_back(std::move(block));
  return true;
}

void Call::fill(const View& view, Block& block, int64_t lowest) {
  const msa_tensor& tensor = *view.tensor;
  if (view.content == Content::kNumbers) {
    std::memset(block.bytes.get(), 0, block.size);
    if (element_bytes(tensor.dtype) != 4) return;
    // The i-th element in row-major order gets the i-th number, wherever strides put it.
    int64_t total = 1;
    for (int32_t axis = 0; axis < tensor.rank; ++axis) total *= tensor.shape[axis];
    const int64_t given = std::min(total, static_cast<int64_t>(view.numbers.size()));
    for (int64_t i = 0; i < given; ++i) {
      int64_t offset = 0;
      int64_t rest = i;
      for (int32_t axis = tensor.rank - 1; axis >= 0; --axis) {
        offset += rest % tensor.shape[axis] * tensor.stride[axis];
        rest /= tensor.shape[axis];
      }
      std::memcpy(block.bytes.get() + (offset - lowest) * 4, &view.numbers[static_cast<size_t>(i)],
                  4);
    }
    return;
  }
  uint64_t random = bytes_.take<uint16_t>() + 0x9E3779B97F4A7C15u;
  for (size_t at = 0; at < block.size; at += element_bytes(tensor.dtype)) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const float value = odd_float(random >> 24);
    uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    if (element_bytes(tensor.dtype) == 2) bits >>= 16;  // as float16 something else: as good
    std::memcpy(block.bytes.get() + at, &bits, element_bytes(tensor.dtype));
  }
  if (view.content != Content::kFloats) {
    block.before.assign(block.bytes.get(), block.bytes.get() + block.size);
  }
}

uint64_t Call::output_hash() const {
  uint64_t hash = 14695981039346656037u;
  for (const Block& block : blocks_) {
    if (block.before.empty()) continue;
    for (size_t n = 0; n < block.size; ++n) hash = (hash ^ block.bytes[n]) * 1099511628211u;
  }
  return hash;
}

void Call::restore_outputs() {
  for (Block& block : blocks_) {
    std::copy(block.before.begin(), block.before.end(), block.bytes.get());
  }
}

}  // namespace msa::fuzz
