// Public keys from any seed and any bytes.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "input.h"
#include "rlwe/keys.h"
#include "sets.h"
#include "wire/residues.h"

using namespace quancrypt;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::choose_set(input);
  const RnsRing& ring = parameters->ring();
  const std::size_t primes = ring.prime_count();
  Seed seed{};
  for (std::size_t i = 0; i < 4; ++i) seed[i] = input.byte();
  const std::size_t expected = polynomial_bytes(ring, primes);
  const fuzz::Bytes body = fuzz::body(input, expected);
  fuzz::patch(input, body);
  try {
    const PublicKey key = PublicKey::load(parameters, seed, body.data(), body.size());
    fuzz::require(body.size() == expected, "a public key of a wrong size");
    for (std::size_t part = 0; part < 2; ++part) {
      for (std::size_t i = 0; i < primes; ++i) {
        const std::uint64_t* prime = key.ntt(part, i);
        fuzz::require(*std::max_element(prime, prime + ring.degree()) < ring.modulus(i).p,
                      "a residue out of range");
      }
    }
    const std::vector<std::uint8_t> saved = key.save();
    fuzz::require(
        saved.size() == body.size() && std::memcmp(saved.data(), body.data(), body.size()) == 0,
        "a public key is not saved as it was loaded");
    fuzz::require(key.seed() == seed, "the seed is another");
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  return 0;
}
