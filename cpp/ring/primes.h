// Primes for negacyclic rings: p = 1 (mod 2N), so that Z_p has a primitive 2N-th root of unity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/kernels.h"

namespace quancrypt {

using simd::Modulus;

inline constexpr std::uint32_t kMaxPrimeBits = 60;  ///< SEAL's limit for users' primes

/// Precomputes the reduction constants; 2 <= p < 2^60.
Modulus make_modulus(std::uint64_t p);

std::uint64_t power_mod(std::uint64_t base, std::uint64_t exponent, const Modulus& modulus);
/// Inverse of a modulo the prime p, 0 < a < p.
std::uint64_t inverse_mod(std::uint64_t a, const Modulus& modulus);

/// Deterministic Miller-Rabin for 64-bit numbers (Sinclair's and Jaeschke's bases, the first twelve
/// primes suffice below 3.3e24). Variable time: for public numbers only.
bool is_prime(std::uint64_t value);

/// The `count` largest primes of exactly `bits` bits that are 1 modulo 2 * degree, without those in
/// `exclude`; fewer if there are fewer.
std::vector<std::uint64_t> find_primes(std::size_t degree, std::uint32_t bits, std::size_t count,
                                       const std::vector<std::uint64_t>& exclude);

/// The smallest primitive 2 * degree-th root of unity modulo p: SEAL's choice, so that
/// NTT forms are interchangeable.
std::uint64_t minimal_primitive_root(std::size_t degree, const Modulus& modulus);

}  // namespace quancrypt
