// The polynomial rings Z_p[X] / (X^N + 1), one for each prime, with the tables that kernels need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ring/primes.h"
#include "simd/kernels.h"

namespace quancrypt {

/// The low `width` bits of `value` in reversed order.
std::size_t reverse_bits(std::size_t value, std::uint32_t width);

/// Twiddle factors of one prime; owns what view() points to.
class NttTables {
 public:
  NttTables(std::size_t degree, const Modulus& modulus);
  [[nodiscard]] const simd::NttTable& view() const noexcept { return view_; }

 private:
  std::vector<std::uint64_t> words_;  // root, root_shoup, inverse_root, inverse_root_shoup
  std::vector<double> reals_;         // real, ratio, inverse_real, inverse_ratio; or empty
  simd::NttTable view_;
};

/// One ring degree, several primes. Immutable after construction; shared between threads.
class RnsRing {
 public:
  /// Throws Error(parameter) unless degree is a power of two and all primes are distinct, prime,
  /// below 2^60 and 1 modulo 2 * degree.
  RnsRing(std::size_t degree, const std::vector<std::uint64_t>& primes);

  [[nodiscard]] std::size_t degree() const noexcept { return degree_; }
  [[nodiscard]] std::size_t prime_count() const noexcept { return moduli_.size(); }
  [[nodiscard]] const Modulus& modulus(std::size_t i) const { return moduli_[i]; }
  [[nodiscard]] const std::vector<Modulus>& moduli() const noexcept { return moduli_; }
  [[nodiscard]] const simd::NttTable& ntt(std::size_t i) const { return tables_[i]->view(); }

 private:
  std::size_t degree_;
  std::vector<Modulus> moduli_;
  std::vector<std::unique_ptr<NttTables>> tables_;
};

}  // namespace quancrypt
