// The security limits and the noise, nothing else.
#pragma once

#include <cstddef>

namespace quancrypt {

/// Largest total bits of the modulus (special prime included) for ternary secrets at ring degree
/// `degree`: Homomorphic Encryption Standard (2018), tables 1 and 2, classical attacks; the values
/// that SEAL enforces as tc128, tc192, tc256. 0 where the standard has none.
constexpr unsigned max_modulus_bits(std::size_t degree, unsigned security) {
  switch (degree) {
    case 1024:
      return security == 128 ? 27 : security == 192 ? 19 : security == 256 ? 14 : 0;
    case 2048:
      return security == 128 ? 54 : security == 192 ? 37 : security == 256 ? 29 : 0;
    case 4096:
      return security == 128 ? 109 : security == 192 ? 75 : security == 256 ? 58 : 0;
    case 8192:
      return security == 128 ? 218 : security == 192 ? 152 : security == 256 ? 118 : 0;
    case 16384:
      return security == 128 ? 438 : security == 192 ? 305 : security == 256 ? 237 : 0;
    case 32768:
      return security == 128 ? 881 : security == 192 ? 611 : security == 256 ? 476 : 0;
    default:
      return 0;
  }
}

/// Fresh errors: centred binomial of 21 + 21 bits, standard deviation 3.24 (the standard's 3.2).
inline constexpr int kMaxError = 21;

}  // namespace quancrypt
