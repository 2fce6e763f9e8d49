#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "rlwe/body.h"
#include "rlwe/parameters.h"

namespace quancrypt {

/// Weighted sum of updates; memory does not grow with their number. Needs no key and holds none.
/// A call while another thread is in one throws Error(parameter).
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
  /// One thread at a time, and no sum that is lost; throws Error(parameter) or Error(system).
  class Guard {
   public:
    explicit Guard(const Aggregator& aggregator);
    ~Guard() { busy_.store(false); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    std::atomic<bool>& busy_;
  };

  /// Both polynomials [2][data primes][degree] of ciphertext `index`, checked.
  void read_ciphertext(const BodyView& body, std::size_t index, std::uint64_t* residues) const;
  /// Adds them `factor` times, or takes them off.
  void add_rows(std::size_t index, std::uint64_t factor, bool negative,
                const std::uint64_t* residues);

  ParametersPtr parameters_;
  std::size_t ciphertexts_;
  std::uint64_t weight_ = 0;
  bool damaged_ = false;
  mutable std::atomic<bool> busy_{false};
  SecureBuffer<std::uint64_t> sums_;  // [ciphertext][2][data primes][degree], in [0, p)
};

}  // namespace quancrypt
