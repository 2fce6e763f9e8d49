// How quantized values lie in the coefficients of a plaintext, and the tables that kernels need.
//
// Value v of a ciphertext (0 <= v < fields * degree) is field v / degree of coefficient v % degree:
// consecutive values go to consecutive coefficients, so that kernels read and write whole vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ring/ring.h"
#include "simd/kernels.h"

namespace quancrypt {

class PackLayout {
 public:
  /// The first `primes` primes of `ring` are the data modulus Q. Throws Error(parameter) unless
  /// every prime is below 2^50 and the fields and guard bits fit below Q.
  PackLayout(const RnsRing& ring, std::size_t primes, std::uint32_t fields,
             std::uint32_t field_bits, std::uint32_t guard_bits);

  [[nodiscard]] const simd::PackTable& table() const noexcept { return table_; }
  [[nodiscard]] std::size_t values() const noexcept { return values_; }

 private:
  std::vector<Modulus> moduli_;
  std::vector<std::uint64_t> limb_power_;
  std::vector<std::uint64_t> garner_;
  std::vector<std::uint64_t> garner_shoup_;
  std::size_t values_;
  simd::PackTable table_;
};

}  // namespace quancrypt
