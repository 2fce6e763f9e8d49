// Parameters in two steps: a literal that anybody may fill in, then a checked immutable object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "packing/layout.h"
#include "packing/slots.h"
#include "ring/ring.h"
#include "wire/checksum.h"

namespace quancrypt {

enum class Encoding { packed, slots };

inline constexpr std::uint32_t kMaxParties = 128;       ///< of a threshold key
inline constexpr std::uint32_t kMaxSmudgingBits = 112;  ///< of one party's noise at decryption

struct ParameterLiteral {
  Encoding encoding = Encoding::packed;
  std::size_t degree = 0;
  std::vector<std::uint64_t> primes;  ///< the data primes, then the special prime if more than one
  unsigned security = 128;            ///< 128, 192 or 256 bits
  std::uint64_t max_weight = 1;       ///< largest sum of integer weights
  // packed encoding
  unsigned bits = 0;             ///< of a quantized value, sign included
  std::uint32_t fields = 0;      ///< values in one coefficient
  std::uint32_t field_bits = 0;  ///< F: a summed field stays below 2^F
  std::uint32_t guard_bits =
      0;  ///< g: the noise of a sum stays below 2^(g-1); once divided, with parties
  std::uint64_t noise_bound = 0;  ///< of one fresh encryption, absolute, certain
  // packed encoding under a threshold key; all 0 otherwise
  std::uint32_t parties = 0;          ///< whose secrets add up to the joint one
  std::uint32_t smudging_bits = 0;    ///< a party's smudging is uniform on [-2^bits, 2^bits - 1]
  std::uint32_t smudging_primes = 0;  ///< last data primes, whose product is at least all noise
  // slots
  unsigned scale_bits = 0;
};

/// Throws Error(parameter) on construction if anything is out of range or not secure.
class Parameters {
 public:
  explicit Parameters(ParameterLiteral literal);

  [[nodiscard]] const ParameterLiteral& literal() const noexcept { return literal_; }
  [[nodiscard]] std::size_t degree() const noexcept { return literal_.degree; }
  /// All primes; keys live here.
  [[nodiscard]] const RnsRing& ring() const noexcept { return ring_; }
  /// Primes of ciphertexts: all but the special one (a lone prime is a data prime).
  [[nodiscard]] std::size_t data_primes() const noexcept { return data_primes_; }
  [[nodiscard]] const PackLayout& layout() const { return *layout_; }  // packed encoding only
  [[nodiscard]] const SlotLayout& slot_layout() const { return *slot_layout_; }  // slots only
  [[nodiscard]] std::size_t values_per_ciphertext() const;
  /// Serialized bytes of one polynomial of a ciphertext.
  [[nodiscard]] std::size_t polynomial_bytes() const noexcept { return polynomial_bytes_; }
  /// Joins the checksums of serialized polynomials.
  [[nodiscard]] const Crc32cJoin& polynomial_checksums() const noexcept { return join_; }
  [[nodiscard]] std::size_t ciphertext_count(std::size_t values) const;
  [[nodiscard]] std::int32_t q_max() const noexcept { return (1 << (literal_.bits - 1)) - 1; }
  /// Largest noise that is left of a sum of total weight `weight` where it is unpacked.
  [[nodiscard]] std::uint64_t noise_of_sum(std::uint64_t weight) const noexcept;

 private:
  ParameterLiteral literal_;
  RnsRing ring_;
  std::size_t data_primes_;
  std::size_t polynomial_bytes_;
  Crc32cJoin join_;
  std::optional<PackLayout> layout_;
  std::optional<SlotLayout> slot_layout_;
};

using ParametersPtr = std::shared_ptr<const Parameters>;

}  // namespace quancrypt
