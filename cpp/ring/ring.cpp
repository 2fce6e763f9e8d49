#include "ring/ring.h"

#include <bit>
#include <set>
#include <string>

#include "base/error.h"
#include "simd/arith.h"

namespace quancrypt {

std::size_t reverse_bits(std::size_t value, std::uint32_t width) {
  std::size_t reversed = 0;
  for (std::uint32_t i = 0; i < width; ++i) reversed |= ((value >> i) & 1) << (width - 1 - i);
  return reversed;
}

namespace {

/// w in [0, p) -> (-p/2, p/2); exact in a double for p < 2^50.
double centred(std::uint64_t w, std::uint64_t p) {
  return w > p / 2 ? -static_cast<double>(p - w) : static_cast<double>(w);
}

}  // namespace

NttTables::NttTables(std::size_t degree, const Modulus& modulus)
    : words_(4 * degree), reals_(modulus.bits <= simd::kSmallPrimeBits ? 4 * degree : 0), view_{} {
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
  view_ = {.modulus = modulus,
           .log_n = log_n,
           .root = roots,
           .root_shoup = roots + degree,
           .inverse_root = inverses,
           .inverse_root_shoup = inverses + degree,
           .inverse_n = inverse_n,
           .inverse_n_shoup = simd::shoup(inverse_n, modulus.p),
           .real = nullptr,
           .ratio = nullptr,
           .inverse_real = nullptr,
           .inverse_ratio = nullptr,
           .inverse_n_real = 0,
           .inverse_n_ratio = 0};
  if (reals_.empty()) return;
  const auto p = static_cast<double>(modulus.p);
  double* real = reals_.data();
  for (std::size_t i = 0; i < degree; ++i) {
    real[i] = centred(roots[i], modulus.p);
    real[degree + i] = real[i] / p;
    real[2 * degree + i] = centred(inverses[i], modulus.p);
    real[3 * degree + i] = real[2 * degree + i] / p;
  }
  view_.real = real;
  view_.ratio = real + degree;
  view_.inverse_real = real + 2 * degree;
  view_.inverse_ratio = real + 3 * degree;
  view_.inverse_n_real = centred(inverse_n, modulus.p);
  view_.inverse_n_ratio = view_.inverse_n_real / p;
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
