// Parameters for tests: primes of given sizes, the largest that there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ring/primes.h"
#include "rlwe/parameters.h"
#include "rlwe/security.h"

namespace quancrypt::testing {

inline ParameterLiteral packed(std::size_t n, const std::vector<std::uint32_t>& bits,
                               std::uint32_t fields, std::uint32_t guard_bits) {
  ParameterLiteral literal;
  literal.degree = n;
  for (const std::uint32_t b : bits) {
    literal.primes.push_back(find_primes(n, b, 1, literal.primes)[0]);
  }
  literal.max_weight = 16;
  literal.bits = n == 1024 ? 2 : 8;
  literal.fields = fields;
  literal.field_bits = n == 1024 ? 6 : 12;
  literal.guard_bits = guard_bits;
  // Of public keys, as quancrypt_native/_search.py explains.
  const std::uint64_t undivided = kMaxError * (2 * n + 1);
  literal.noise_bound =
      bits.size() == 1 ? undivided : undivided / literal.primes.back() + n / 2 + 2;
  return literal;
}

inline ParameterLiteral slots(std::size_t n, const std::vector<std::uint32_t>& bits,
                              unsigned scale_bits) {
  ParameterLiteral literal;
  literal.encoding = Encoding::slots;
  literal.degree = n;
  for (const std::uint32_t b : bits) {
    literal.primes.push_back(find_primes(n, b, 1, literal.primes)[0]);
  }
  literal.max_weight = 16;
  literal.scale_bits = scale_bits;
  return literal;
}

}  // namespace quancrypt::testing
