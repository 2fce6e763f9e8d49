// Modular arithmetic on single words. For files compiled for the base instruction set only.
#pragma once

#include <cstdint>

#include "simd/kernels.h"

namespace quancrypt::simd {

__extension__ using u128 = unsigned __int128;

/// floor(w * 2^64 / p), w < p, by floor(2^128 / p) instead of a division. Dropped fractions make the
/// quotient at most 1 too small; what is then left of w * 2^64 is below 2p < 2^62.
inline std::uint64_t shoup(std::uint64_t w, const Modulus& m) {
  const std::uint64_t q =
      w * m.ratio_hi + static_cast<std::uint64_t>((static_cast<u128>(w) * m.ratio_lo) >> 64);
  const std::uint64_t left = 0 - q * m.p;
  return q + ((m.p - 1 - left) >> 63);
}

/// w * x mod p in [0, 2p); any x, w < p < 2^62.
inline std::uint64_t multiply_lazy(std::uint64_t x, std::uint64_t w, std::uint64_t w_shoup,
                                   std::uint64_t p) {
  const auto q = static_cast<std::uint64_t>((static_cast<u128>(x) * w_shoup) >> 64);
  return w * x - q * p;
}

/// x in [0, 2b) -> x mod b without a branch; b < 2^63.
inline std::uint64_t reduce_once(std::uint64_t x, std::uint64_t b) {
  const std::uint64_t y = x - b;
  return y + (b & (0 - (y >> 63)));
}

inline std::uint64_t add_mod(std::uint64_t a, std::uint64_t b, std::uint64_t p) {
  return reduce_once(a + b, p);
}

inline std::uint64_t sub_mod(std::uint64_t a, std::uint64_t b, std::uint64_t p) {
  const std::uint64_t y = a - b;
  return y + (p & (0 - (y >> 63)));
}

/// x mod p for any 128-bit x (Barrett with floor(2^128 / p); the quotient is at most 1 too small,
/// dropped low words make it at most 2 too small).
inline std::uint64_t reduce_128(u128 x, const Modulus& m) {
  const auto lo = static_cast<std::uint64_t>(x);
  const auto hi = static_cast<std::uint64_t>(x >> 64);
  const u128 lo_hi = static_cast<u128>(lo) * m.ratio_hi;
  const u128 hi_lo = static_cast<u128>(hi) * m.ratio_lo;
  const u128 lo_lo_carry = (static_cast<u128>(lo) * m.ratio_lo) >> 64;
  const u128 middle =
      lo_lo_carry + static_cast<std::uint64_t>(lo_hi) + static_cast<std::uint64_t>(hi_lo);
  const std::uint64_t quotient = hi * m.ratio_hi + static_cast<std::uint64_t>(lo_hi >> 64) +
                                 static_cast<std::uint64_t>(hi_lo >> 64) +
                                 static_cast<std::uint64_t>(middle >> 64);
  const std::uint64_t r = lo - quotient * m.p;  // in [0, 3p), 3p < 2^62
  return reduce_once(reduce_once(r, m.p << 1), m.p);
}

inline std::uint64_t multiply_mod(std::uint64_t a, std::uint64_t b, const Modulus& m) {
  return reduce_128(static_cast<u128>(a) * b, m);
}

}  // namespace quancrypt::simd
