#include "multiparty/shamir.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "simd/arith.h"

namespace quancrypt {

std::uint64_t lagrange_at_zero(std::size_t point, const std::vector<std::size_t>& points,
                               const Modulus& modulus) {
  if (std::count(points.begin(), points.end(), point) != 1) {
    throw Error(ErrorCode::parameter,
                "point " + std::to_string(point) + " does not stand once among the points");
  }
  std::uint64_t numerator = 1;
  std::uint64_t denominator = 1;
  for (const std::size_t x : points) {
    if (x < 1 || x > kMaxParties || std::count(points.begin(), points.end(), x) != 1) {
      throw Error(ErrorCode::parameter, "point " + std::to_string(x) +
                                            " is not allowed: distinct points from 1 to " +
                                            std::to_string(kMaxParties));
    }
    if (x == point) continue;
    const std::uint64_t difference = x > point ? x - point : modulus.p - (point - x);
    numerator = simd::multiply_mod(numerator, x, modulus);
    denominator = simd::multiply_mod(denominator, difference, modulus);
  }
  return simd::multiply_mod(numerator, inverse_mod(denominator, modulus), modulus);
}

}  // namespace quancrypt
