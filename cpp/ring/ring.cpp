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
  const std::uint64_t p = modulus.p;
  const std::uint64_t root = minimal_primitive_root(degree, modulus);
  const std::uint64_t root_shoup = simd::shoup(root, modulus);
  std::uint64_t* roots = words_.data();
  std::uint64_t* inverses = roots + 2 * degree;
  const auto store = [degree, log_n](std::uint64_t* table, std::size_t i, std::uint64_t power,
                                     std::uint64_t shoup) {
    const std::size_t at = reverse_bits(i, log_n);
    table[at] = power;
    table[degree + at] = shoup;
  };
  const std::uint64_t one_shoup = simd::shoup(1, modulus);
  store(roots, 0, 1, one_shoup);
  store(inverses, 0, 1, one_shoup);
  std::uint64_t power = 1;
  for (std::size_t i = 1; i < degree; ++i) {
    power = simd::reduce_once(simd::multiply_lazy(power, root, root_shoup, p), p);
    const std::uint64_t shoup = simd::shoup(power, modulus);
    store(roots, i, power, shoup);
    // root^N = -1, so root^-(N - i) = -root^i. p divides no power * 2^64: both floors make 2^64 - 1.
    store(inverses, degree - i, p - power, ~shoup);
  }
  const std::uint64_t inverse_n = inverse_mod(degree % modulus.p, modulus);
  view_ = {.modulus = modulus,
           .log_n = log_n,
           .root = roots,
           .root_shoup = roots + degree,
           .inverse_root = inverses,
           .inverse_root_shoup = inverses + degree,
           .inverse_n = inverse_n,
           .inverse_n_shoup = simd::shoup(inverse_n, modulus),
           .real = nullptr,
           .ratio = nullptr,
           .inverse_real = nullptr,
           .inverse_ratio = nullptr,
           .inverse_n_real = 0,
           .inverse_n_ratio = 0};
  if (reals_.empty()) return;
  const auto divisor = static_cast<double>(p);
  double* real = reals_.data();
  for (std::size_t i = 0; i < degree; ++i) {
    real[i] = centred(roots[i], p);
    real[degree + i] = real[i] / divisor;
    real[2 * degree + i] = centred(inverses[i], p);
    real[3 * degree + i] = real[2 * degree + i] / divisor;
  }
  view_.real = real;
  view_.ratio = real + degree;
  view_.inverse_real = real + 2 * degree;
  view_.inverse_ratio = real + 3 * degree;
  view_.inverse_n_real = centred(inverse_n, p);
  view_.inverse_n_ratio = view_.inverse_n_real / divisor;
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
  }
  for (const Modulus& modulus : moduli_) {  // after all checks: tables take memory
    tables_.push_back(std::make_unique<NttTables>(degree, modulus));
  }
}

}  // namespace quancrypt
