#include "wire/checksum.h"

#include <array>

namespace quancrypt {
namespace {

/// Column b: what becomes of bit b. Matrices over GF(2).
using Matrix = std::array<std::uint32_t, 32>;

constexpr std::uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, reflected

std::uint32_t apply(const Matrix& m, std::uint32_t x) {
  std::uint32_t y = 0;
  for (int bit = 0; bit < 32; ++bit) y ^= m[bit] & (0U - (x >> bit & 1));
  return y;
}

}  // namespace

Crc32cJoin::Crc32cJoin(std::size_t piece_bytes) : table_{} {
  Matrix power{kPolynomial};  // over one zero bit, then 2, 4, ...
  Matrix advance{};           // over the bits of piece_bytes counted so far
  for (int bit = 0; bit < 32; ++bit) {
    if (bit > 0) power[bit] = std::uint32_t{1} << (bit - 1);
    advance[bit] = std::uint32_t{1} << bit;
  }
  for (std::size_t bits = 8 * piece_bytes; bits != 0; bits >>= 1) {
    if (bits & 1) {
      for (std::uint32_t& column : advance) column = apply(power, column);
    }
    Matrix squared{};
    for (int bit = 0; bit < 32; ++bit) squared[bit] = apply(power, power[bit]);
    power = squared;
  }
  for (std::uint32_t k = 0; k < 4; ++k) {
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      table_[k][byte] = apply(advance, byte << (8 * k));
    }
  }
}

}  // namespace quancrypt
