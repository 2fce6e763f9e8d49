// Shamir's secret sharing over R_q, prime by prime: Mouchet, Bertrand, Hubaux, "An Efficient Threshold
// Access-Structure for RLWE-Based Cryptosystems", Journal of Cryptology 2023.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ring/primes.h"
#include "rlwe/parameters.h"

namespace quancrypt {

/// Points are 1 to kMaxParties, so that their differences are invertible modulo every larger prime.
///
/// lambda of `point` in `points`: the product over other points x of x / (x - point) modulo p.
/// Throws Error(parameter) unless the points are distinct, in [1, kMaxParties], and `point` is one.
std::uint64_t lagrange_at_zero(std::size_t point, const std::vector<std::size_t>& points,
                               const Modulus& modulus);

}  // namespace quancrypt
