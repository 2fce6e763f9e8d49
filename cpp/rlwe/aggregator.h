#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "rlwe/body.h"
#include "rlwe/parameters.h"

namespace quancrypt {

/// Weighted sum of updates; memory does not grow with their number. Needs no key and holds none.
/// Not for use from two threads at a time.
class Aggregator {
 public:
  Aggregator(ParametersPtr parameters, std::size_t ciphertexts);

  /// sum += weight * update, 1 <= weight. Throws Error(wire_format) at a malformed body and
  /// Error(capacity) if the total weight would pass max_weight; the sum is then unchanged.
  void add(const BodyView& body, std::uint64_t own_weight, std::uint64_t factor);

  [[nodiscard]] std::uint64_t weight() const noexcept { return weight_; }
  [[nodiscard]] std::size_t ciphertexts() const noexcept { return ciphertexts_; }
  [[nodiscard]] const ParametersPtr& parameters() const noexcept { return parameters_; }
  /// Both polynomials of every ciphertext: body_bytes(parameters, ciphertexts, seeded = false).
  /// Returns the CRC-32C of each.
  std::vector<std::uint32_t> write(std::uint8_t* body) const;

 private:
  void add_ciphertext(const BodyView& body, std::size_t index, std::uint64_t factor,
                      SecureBuffer<std::uint64_t>& scratch);
  /// Undoes add_ciphertext.
  void subtract_ciphertext(const BodyView& body, std::size_t index, std::uint64_t factor,
                           SecureBuffer<std::uint64_t>& scratch);
  /// Adds `factor` times both polynomials [2][data primes][degree] of ciphertext `index`.
  void add_rows(std::size_t index, std::uint64_t factor, const std::uint64_t* residues);

  ParametersPtr parameters_;
  std::size_t ciphertexts_;
  std::uint64_t weight_ = 0;
  SecureBuffer<std::uint64_t> sums_;  // [ciphertext][2][data primes][degree], in [0, p)
};

}  // namespace quancrypt
