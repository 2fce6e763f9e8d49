#include "ring/primes.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "simd/arith.h"

namespace quancrypt {

using simd::multiply_mod;
using simd::u128;

Modulus make_modulus(std::uint64_t p) {
  if (p < 2 || p >> kMaxPrimeBits != 0) {
    throw Error(ErrorCode::parameter, "modulus " + std::to_string(p) + " is not in [2, 2^60)");
  }
  // floor(2^128 / p) from floor((2^128 - 1) / p): they differ only if p divides 2^128.
  u128 ratio = ~u128{0} / p;
  if (std::has_single_bit(p)) ++ratio;
  return {p, static_cast<std::uint64_t>(ratio), static_cast<std::uint64_t>(ratio >> 64),
          static_cast<std::uint32_t>(std::bit_width(p - 1))};
}

std::uint64_t power_mod(std::uint64_t base, std::uint64_t exponent, const Modulus& modulus) {
  std::uint64_t result = 1 % modulus.p;
  base %= modulus.p;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = multiply_mod(result, base, modulus);
    base = multiply_mod(base, base, modulus);
  }
  return result;
}

std::uint64_t inverse_mod(std::uint64_t a, const Modulus& modulus) {
  return power_mod(a, modulus.p - 2, modulus);  // Fermat
}

bool is_prime(std::uint64_t value) {
  constexpr std::uint64_t bases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
  if (value < 2 || value >> kMaxPrimeBits != 0) return false;
  for (const std::uint64_t base : bases) {
    if (value % base == 0) return value == base;
  }
  const Modulus modulus = make_modulus(value);
  const int twos = std::countr_zero(value - 1);
  const std::uint64_t odd = (value - 1) >> twos;
  return std::all_of(std::begin(bases), std::end(bases), [&](std::uint64_t base) {
    std::uint64_t x = power_mod(base, odd, modulus);
    if (x == 1 || x == value - 1) return true;
    for (int i = 1; i < twos; ++i) {
      x = multiply_mod(x, x, modulus);
      if (x == value - 1) return true;
    }
    return false;
  });
}

std::vector<std::uint64_t> find_primes(std::size_t degree, std::uint32_t bits, std::size_t count,
                                       const std::vector<std::uint64_t>& exclude) {
  std::vector<std::uint64_t> found;
  if (bits < 2 || bits > kMaxPrimeBits) return found;
  const std::uint64_t step = 2 * static_cast<std::uint64_t>(degree);
  const std::uint64_t low = std::uint64_t{1} << (bits - 1);
  std::uint64_t candidate = (((low << 1) - 1) / step) * step + 1;  // largest 1 mod step
  if (candidate > (low << 1) - 1) candidate -= std::min(candidate, step);
  for (; candidate > low && found.size() < count; candidate -= step) {
    if (is_prime(candidate) &&
        std::find(exclude.begin(), exclude.end(), candidate) == exclude.end()) {
      found.push_back(candidate);
    }
    if (candidate < step) break;
  }
  return found;
}

std::uint64_t minimal_primitive_root(std::size_t degree, const Modulus& modulus) {
  const std::uint64_t order = 2 * static_cast<std::uint64_t>(degree);
  const std::uint64_t p = modulus.p;
  if ((p - 1) % order != 0) {
    throw Error(ErrorCode::parameter,
                "prime " + std::to_string(p) + " is not 1 modulo " + std::to_string(order));
  }
  const std::uint64_t cofactor = (p - 1) / order;
  std::uint64_t root = 0;
  for (std::uint64_t base = 2; base < p; ++base) {
    root = power_mod(base, cofactor, modulus);
    // order is a power of two: the root is primitive if its order/2-th power is -1.
    if (power_mod(root, order / 2, modulus) == p - 1) break;
  }
  // All primitive roots are the odd powers of one of them.
  const std::uint64_t square = multiply_mod(root, root, modulus);
  const std::uint64_t square_shoup = simd::shoup(square, modulus);
  std::uint64_t smallest = root;
  std::uint64_t current = root;
  for (std::uint64_t i = 1; i < order / 2; ++i) {
    current = simd::reduce_once(simd::multiply_lazy(current, square, square_shoup, p), p);
    smallest = std::min(smallest, current);
  }
  return smallest;
}

}  // namespace quancrypt
