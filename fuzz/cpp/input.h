// A fuzzer's input read as numbers and bytes, and the check that ends the program.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace quancrypt::fuzz {

/// Ends the program, as a sanitizer does, unless `condition` holds.
inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

/// Bytes on the heap in exactly their size, so that AddressSanitizer sees one read too far.
class Bytes {
 public:
  explicit Bytes(std::size_t size) : data_(new std::uint8_t[size]), size_(size) {}
  [[nodiscard]] std::uint8_t* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  std::unique_ptr<std::uint8_t[]> data_;
  std::size_t size_;
};

/// Reads the input from its beginning; zeros follow its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  std::uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }

  /// Little-endian, `bytes` of it.
  std::uint64_t number(unsigned bytes) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= static_cast<std::uint64_t>(byte()) << (8 * i);
    return value;
  }

  /// A number of any size, small ones often: one byte says how many follow (0 to 8).
  std::uint64_t any_number() { return number(byte() % 9); }

  [[nodiscard]] std::size_t left() const { return left_; }

  /// All that is left, as it is.
  Bytes rest() {
    Bytes out(left_);
    if (left_ > 0) std::memcpy(out.data(), data_, left_);
    left_ = 0;
    return out;
  }

  /// `size` bytes: what is left, over and over, so that short inputs fill long bodies.
  Bytes tiled(std::size_t size) {
    Bytes out(size);
    if (size == 0) return out;
    std::size_t filled = std::min(left_, size);
    if (filled > 0) {
      std::memcpy(out.data(), data_, filled);
    } else {
      out.data()[filled++] = 0;
    }
    for (; filled < size; filled += std::min(filled, size - filled)) {
      std::memcpy(out.data() + filled, out.data(), std::min(filled, size - filled));
    }
    return out;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

/// A body for `expected` bytes. Length and content are the input's: mostly the right length, so that
/// residues are reached; sometimes one off, or just what the input holds.
inline Bytes body(Input& input, std::size_t expected) {
  const std::uint8_t mode = input.byte();
  Bytes out = mode % 8 == 0                   ? input.rest()
              : mode % 8 == 1 && expected > 0 ? input.tiled(expected - 1)
              : mode % 8 == 2                 ? input.tiled(expected + 1)
                                              : input.tiled(expected);
  return out;
}

/// Writes a number of the input over 8 bytes at a place of the input: residues out of range anywhere.
inline void patch(Input& input, const Bytes& out) {
  if (input.left() == 0) return;
  const std::size_t at = input.number(2);
  const std::uint64_t value = input.number(8);
  for (std::size_t i = 0; i < 8 && at + i < out.size(); ++i) {
    out.data()[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

}  // namespace quancrypt::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
