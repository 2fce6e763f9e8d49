#include "ring/ring.h"

#include <bit>
#include <set>
#include <string>

#include "base/error.h"
#include "simd/arith.h"

namespace quancrypt {
namespace {

std::size_t reverse_bits(std::size_t value, std::uint32_t width) {
  std::size_t reversed = 0;
  for (std::uint32_t i = 0; i < width; ++i) reversed |= ((value >> i) & 1) << (width - 1 - i);
  return reversed;
}

}  // namespace

NttTables::NttTables(std::size_t degree, const Modulus& modulus) : words_(4 * degree), view_{} {
  const auto log_n = static_cast<std::uint32_t>(std::countr_zero(degree));
  const std::uint64_t root = minimal_primitive_root(degree, modulus);
  const std::uint64_t inverse = inverse_mod(root, modulus);
  std::uint64_t* roots = words_.data();
  std::uint64_t* inverses = roots + 2 * degree;
  std::uint64_t power = 1;
  std::uint64_t inverse_power = 1;
  for (std::size_t i = 0; i < degree; ++i) {
    const std::size_t at = reverse_bits(i, log_n);
    roots[at] = power;
    roots[degree + at] = simd::shoup(power, modulus.p);
    inverses[at] = inverse_power;
    inverses[degree + at] = simd::shoup(inverse_power, modulus.p);
    power = simd::multiply_mod(power, root, modulus);
    inverse_power = simd::multiply_mod(inverse_power, inverse, modulus);
  }
  const std::uint64_t inverse_n = inverse_mod(degree % modulus.p, modulus);
  view_ = {modulus,   log_n,
           roots,     roots + degree,
           inverses,  inverses + degree,
           inverse_n, simd::shoup(inverse_n, modulus.p)};
}

RnsRing::RnsRing(std::size_t degree, const std::vector<std::uint64_t>& primes) : degree_(degree) {
  if (!std::has_single_bit(degree) || degree < 1024 || degree > 32768) {
    throw Error(ErrorCode::parameter, "ring degree is " + std::to_string(degree) +
                                          "; allowed: 1024, 2048, 4096, 8192, 16384, 32768");
  }
  if (primes.empty() || primes.size() > simd::kMaxPrimes) {
    throw Error(ErrorCode::parameter, "number of primes is " + std::to_string(primes.size()) +
                                          "; allowed: 1 to " + std::to_string(simd::kMaxPrimes));
  }
  if (std::set<std::uint64_t>(primes.begin(), primes.end()).size() != primes.size()) {
    throw Error(ErrorCode::parameter, "the primes of the modulus are not distinct");
  }
  for (const std::uint64_t p : primes) {
    if (!is_prime(p)) {
      throw Error(ErrorCode::parameter, std::to_string(p) + " is not a prime below 2^60");
    }
    moduli_.push_back(make_modulus(p));
    tables_.push_back(std::make_unique<NttTables>(degree, moduli_.back()));
  }
}

}  // namespace quancrypt
