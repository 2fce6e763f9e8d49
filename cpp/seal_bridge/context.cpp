#include "seal_bridge/context.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "seal/util/config.h"

namespace quancrypt::seal_bridge {
namespace {

::seal::sec_level_type security_level(unsigned security) {
  switch (security) {
    case 128:
      return ::seal::sec_level_type::tc128;
    case 192:
      return ::seal::sec_level_type::tc192;
    case 256:
      return ::seal::sec_level_type::tc256;
    default:
      throw Error(ErrorCode::parameter,
                  "security is " + std::to_string(security) + "; allowed: 128, 192, 256");
  }
}

}  // namespace

const char* version() { return SEAL_VERSION; }

::seal::EncryptionParameters encryption_parameters(const Parameters& parameters) {
  ::seal::EncryptionParameters result(::seal::scheme_type::ckks);
  result.set_poly_modulus_degree(parameters.degree());
  const std::vector<std::uint64_t>& primes = parameters.literal().primes;
  result.set_coeff_modulus(std::vector<::seal::Modulus>(primes.begin(), primes.end()));
  return result;
}

Context::Context(ParametersPtr parameters) : parameters_(std::move(parameters)) {
  // Without the modulus chain: sums stay at the first level.
  context_ = std::make_unique<::seal::SEALContext>(encryption_parameters(*parameters_), false,
                                                   security_level(parameters_->literal().security));
  if (!context_->parameters_set()) {
    throw Error(ErrorCode::parameter, std::string("Microsoft SEAL rejects the parameters: ") +
                                          context_->parameter_error_message());
  }
}

double Context::scale() const {
  const ParameterLiteral& literal = parameters_->literal();
  return literal.encoding == Encoding::packed ? 1.0 : std::ldexp(1.0, int(literal.scale_bits));
}

}  // namespace quancrypt::seal_bridge
