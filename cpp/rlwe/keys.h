// Keys live modulo all primes, the special one included, in NTT form: SEAL's key level.
#pragma once

#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "ring/prng.h"
#include "rlwe/parameters.h"

namespace quancrypt {

/// Ternary secret s. Move-only, wiped on destruction; its coefficients leave only through save().
class SecretKey {
 public:
  /// Fresh from the operating system's randomness.
  static SecretKey generate(ParametersPtr parameters);
  /// From save()'s bytes. Throws Error(wire_format) on a wrong size or an impossible code.
  static SecretKey load(ParametersPtr parameters, const std::uint8_t* data, std::size_t size);

  SecretKey(const SecretKey&) = delete;
  SecretKey& operator=(const SecretKey&) = delete;
  SecretKey(SecretKey&&) = default;
  SecretKey& operator=(SecretKey&&) = default;

  /// degree / 4 bytes: coefficient c is two bits, value s_c + 1, at bit 2 (c mod 4) of byte c / 4.
  [[nodiscard]] SecureBuffer<std::uint8_t> save() const;

  [[nodiscard]] const ParametersPtr& parameters() const noexcept { return parameters_; }
  /// NTT form modulo prime i, values in [0, p_i).
  [[nodiscard]] const std::uint64_t* ntt(std::size_t i) const {
    return ntt_.data() + i * parameters_->degree();
  }

 private:
  SecretKey(ParametersPtr parameters, SecureBuffer<std::int8_t> coefficients);

  ParametersPtr parameters_;
  SecureBuffer<std::int8_t> coefficients_;
  SecureBuffer<std::uint64_t> ntt_;
};

/// (pk0, pk1) = (-(a s + e), a), a expanded from a public seed.
class PublicKey {
 public:
  static PublicKey generate(const SecretKey& secret);
  /// From seed() and save()'s bytes. Throws Error(wire_format).
  static PublicKey load(ParametersPtr parameters, const Seed& seed, const std::uint8_t* data,
                        std::size_t size);

  /// pk0, bit-packed modulo all primes.
  [[nodiscard]] std::vector<std::uint8_t> save() const;
  [[nodiscard]] const Seed& seed() const noexcept { return seed_; }
  [[nodiscard]] const ParametersPtr& parameters() const noexcept { return parameters_; }
  /// NTT form of pk0 (j = 0) or pk1 (j = 1) modulo prime i.
  [[nodiscard]] const std::uint64_t* ntt(std::size_t j, std::size_t i) const {
    return polynomials_[j].data() + i * parameters_->degree();
  }
  /// The same divided by the special prime, modulo data prime i; ntt(j, i) without a special prime.
  [[nodiscard]] const std::uint64_t* scaled_ntt(std::size_t j, std::size_t i) const {
    return scaled_[j].empty() ? ntt(j, i) : scaled_[j].data() + i * parameters_->degree();
  }

 private:
  PublicKey(ParametersPtr parameters, const Seed& seed);
  /// Fills scaled_, once polynomials_ is whole.
  void scale();

  ParametersPtr parameters_;
  Seed seed_;
  std::vector<std::uint64_t> polynomials_[2];
  std::vector<std::uint64_t> scaled_[2];  // [data primes][degree]; empty without a special prime
};

}  // namespace quancrypt
