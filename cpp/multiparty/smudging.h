// Noise that hides the noise of a ciphertext ("smudging", or "flooding").
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/secure_buffer.h"
#include "ring/prng.h"
#include "ring/ring.h"

namespace quancrypt {

/// Ring elements with coefficients uniform on [-2^bits, 2^bits - 1]. Constant time. One worker's.
class Smudging {
 public:
  /// 1 <= bits <= kMaxSmudgingBits (parameters.h).
  Smudging(const RnsRing& ring, unsigned bits);

  /// Draws a new element.
  void sample(Prng& prng);
  /// out[degree] = the element modulo prime i, coefficient form, in [0, p_i).
  void residues(std::size_t i, std::uint64_t* out) const;

 private:
  const RnsRing& ring_;
  unsigned bits_;
  unsigned word_bits_;                 // at most 50
  SecureBuffer<std::uint8_t> packed_;  // one word of each coefficient
  SecureBuffer<std::uint64_t> words_;  // [words][degree]: of element + 2^bits, lowest first
};

}  // namespace quancrypt
