// Parameter sets from any literal: an Error(parameter), or a set in which every bound holds.
#include "rlwe/parameters.h"

#include <cmath>

#include "base/error.h"
#include "input.h"
#include "rlwe/security.h"

using namespace quancrypt;

namespace {

/// Primes at N = 1024 and 2048 of many sizes, so that sets come about at all.
const std::vector<std::uint64_t>& known_primes() {
  static const std::vector<std::uint64_t> found = [] {
    std::vector<std::uint64_t> all;
    for (const std::uint32_t bits : {13U, 14U, 17U, 20U, 22U, 27U, 33U, 46U, 50U, 54U, 60U}) {
      for (const std::uint64_t p : find_primes(2048, bits, 2, all)) all.push_back(p);
    }
    return all;
  }();
  return found;
}

/// Mostly within [0, range), so that deep checks are reached; sometimes anything.
std::uint64_t near(fuzz::Input& input, std::uint64_t range) {
  const std::uint8_t first = input.byte();
  return first % 16 == 0 ? input.any_number() : (first | input.byte() << 8) % range;
}

std::size_t degree(fuzz::Input& input) {
  const std::uint8_t choice = input.byte();
  if (choice % 8 == 0) return input.any_number() % 4096;
  if (choice == 0xFF) return std::size_t{4096} << input.byte() % 4;  // rare: their tables take long
  return choice % 2 == 0 ? 1024 : 2048;
}

ParameterLiteral literal(fuzz::Input& input) {
  ParameterLiteral p;
  p.encoding = input.byte() % 2 == 0 ? Encoding::packed : Encoding::slots;
  p.degree = degree(input);
  const std::uint8_t count = input.byte();
  for (std::size_t i = 0; i < (count == 0xFF ? 65U : count % 5U); ++i) {
    const std::uint8_t which = input.byte();
    p.primes.push_back(which % 16 == 0 ? input.any_number()
                                       : known_primes()[which % known_primes().size()]);
  }
  const std::uint8_t level = input.byte();
  p.security = level % 8 == 0 ? static_cast<unsigned>(input.any_number()) : 128 + 64 * (level % 3);
  p.max_weight = near(input, 20);
  p.bits = static_cast<unsigned>(near(input, 18));
  p.fields = static_cast<std::uint32_t>(near(input, 5));
  p.field_bits = static_cast<std::uint32_t>(near(input, 34));
  p.guard_bits = static_cast<std::uint32_t>(near(input, 62));
  p.noise_bound = near(input, 65536);
  p.scale_bits = static_cast<unsigned>(near(input, 62));
  if (input.byte() % 2 == 1) {  // a threshold key's, mostly with what it asks for
    p.parties = static_cast<std::uint32_t>(near(input, 6));
    p.smudging_bits = static_cast<std::uint32_t>(near(input, 24));
    p.smudging_primes = static_cast<std::uint32_t>(near(input, 3));
    if (input.byte() % 8 != 0) p.guard_bits = 2;
  }
  return p;
}

void check(const Parameters& made, std::uint64_t values) {
  const ParameterLiteral& p = made.literal();
  long double modulus_bits = 0;
  long double data_bits = 0;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < p.primes.size(); ++i) {
    modulus_bits += std::log2(static_cast<long double>(p.primes[i]));
    if (i >= made.data_primes()) continue;
    data_bits += std::log2(static_cast<long double>(p.primes[i]));
    bytes += p.degree / 8 * made.ring().modulus(i).bits;
    fuzz::require(p.primes[i] % (2 * p.degree) == 1, "a prime without a root of unity");
  }
  fuzz::require(modulus_bits <= max_modulus_bits(p.degree, p.security), "a modulus not secure");
  fuzz::require(made.data_primes() == std::max<std::size_t>(p.primes.size() - 1, 1), "data primes");
  fuzz::require(made.polynomial_bytes() == bytes, "bytes of a polynomial");
  fuzz::require(p.max_weight >= 1 && p.max_weight <= 65536, "max_weight");
  const std::size_t each = made.values_per_ciphertext();
  fuzz::require(each > 0, "no value in a ciphertext");
  const std::size_t count = made.ciphertext_count(values);
  fuzz::require(count <= values && (values == 0 || (count - 1) * each < values), "ciphertexts");
  if (p.encoding == Encoding::slots) return;
  const long double used = static_cast<long double>(p.fields) * p.field_bits + p.guard_bits;
  fuzz::require(used <= data_bits + static_cast<long double>(made.data_primes()), "fields overlap");
  fuzz::require(each == p.degree * p.fields, "values in a ciphertext");
  const long double sum = static_cast<long double>(p.max_weight) * 2 * made.q_max();
  fuzz::require(sum < std::exp2(static_cast<long double>(p.field_bits)), "a sum overflows");
  const long double noise =
      static_cast<long double>(p.max_weight) * static_cast<long double>(p.noise_bound);
  if (p.parties == 0) {
    fuzz::require(noise < std::exp2(static_cast<long double>(p.guard_bits) - 1), "noise overflows");
    return;
  }
  // The smudging primes hold all noise; the fields lie in those before them.
  long double room = 1;
  for (std::size_t i = made.data_primes() - p.smudging_primes; i < made.data_primes(); ++i) {
    room *= static_cast<long double>(p.primes[i]);
  }
  const long double smudging = p.parties * std::exp2(static_cast<long double>(p.smudging_bits));
  fuzz::require(noise + smudging <= room * (1 + 1e-15L), "noise and smudging overflow");
  fuzz::require(used + std::log2(room) <= data_bits + static_cast<long double>(made.data_primes()),
                "fields overlap the smudging");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  ParameterLiteral wanted = literal(input);
  const std::uint64_t values = input.any_number();
  try {
    const Parameters made(std::move(wanted));
    check(made, values);
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::parameter, "another error than 'parameter'");
  }
  return 0;
}
