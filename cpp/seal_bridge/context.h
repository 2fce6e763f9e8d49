// Everything that touches Microsoft SEAL starts here: the same parameters as a SEAL context.
#pragma once

#include <memory>

#include "rlwe/parameters.h"
#include "seal/seal.h"

namespace quancrypt::seal_bridge {

/// "4.1.2": the SEAL that is linked in.
const char* version();

class Context {
 public:
  /// Throws Error(parameter) with SEAL's reason if SEAL does not accept the parameters at their
  /// security level.
  explicit Context(ParametersPtr parameters);

  [[nodiscard]] const Parameters& parameters() const noexcept { return *parameters_; }
  [[nodiscard]] const ::seal::SEALContext& seal() const noexcept { return *context_; }
  /// Scale of ciphertexts: 1 for packed integers, 2^scale_bits for slots.
  [[nodiscard]] double scale() const;

 private:
  ParametersPtr parameters_;
  std::unique_ptr<::seal::SEALContext> context_;
};

/// CKKS parameters with the same ring degree and primes.
::seal::EncryptionParameters encryption_parameters(const Parameters& parameters);

}  // namespace quancrypt::seal_bridge
