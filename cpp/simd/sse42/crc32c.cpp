// CRC-32C by the CPU's instruction, three chains at a time to hide its latency of three cycles; the
// chains are joined by advancing a checksum over zeros with a table (M. Adler's method).
#include <nmmintrin.h>

#include "simd/sse42/sse42.h"

namespace quancrypt::simd::sse42 {
namespace {

constexpr std::size_t kChain = 1024;  // bytes of one chain, a power of two
constexpr std::uint32_t kPolynomial = 0x82F63B78;

/// table[k][b]: byte k of a checksum with value b, advanced over kChain zero bytes.
struct Advance {
  std::uint32_t table[4][256];

  constexpr Advance() : table{} {
    // single[b]: the checksum 1 << b advanced by one zero bit, then by twice as many again and again.
    std::uint32_t single[32] = {kPolynomial};
    for (int bit = 1; bit < 32; ++bit) single[bit] = std::uint32_t{1} << (bit - 1);
    for (std::size_t bits = 1; bits < 8 * kChain; bits *= 2) {
      std::uint32_t twice[32] = {};
      for (int bit = 0; bit < 32; ++bit) {
        for (int k = 0; k < 32; ++k) twice[bit] ^= single[bit] >> k & 1 ? single[k] : 0;
      }
      for (int bit = 0; bit < 32; ++bit) single[bit] = twice[bit];
    }
    for (int k = 0; k < 4; ++k) {
      for (int byte = 0; byte < 256; ++byte) {
        for (int bit = 0; bit < 8; ++bit) {
          if (byte >> bit & 1) table[k][byte] ^= single[8 * k + bit];
        }
      }
    }
  }

  [[nodiscard]] std::uint32_t operator()(std::uint32_t crc) const {
    return table[0][crc & 0xFF] ^ table[1][crc >> 8 & 0xFF] ^ table[2][crc >> 16 & 0xFF] ^
           table[3][crc >> 24];
  }
};

constexpr Advance kAdvance;

inline std::uint64_t load64(const std::uint8_t* data) {
  std::uint64_t value = 0;
  __builtin_memcpy(&value, data, sizeof(value));
  return value;
}

}  // namespace

std::uint32_t crc32c(std::uint32_t crc, const std::uint8_t* data, std::size_t size) {
  std::uint64_t a = ~crc;
  for (; size >= 3 * kChain; size -= 3 * kChain, data += 3 * kChain) {
    std::uint64_t b = 0;
    std::uint64_t c = 0;
    for (std::size_t i = 0; i < kChain; i += 8) {
      a = _mm_crc32_u64(a, load64(data + i));
      b = _mm_crc32_u64(b, load64(data + kChain + i));
      c = _mm_crc32_u64(c, load64(data + 2 * kChain + i));
    }
    a = kAdvance(static_cast<std::uint32_t>(a)) ^ b;
    a = kAdvance(static_cast<std::uint32_t>(a)) ^ c;
  }
  for (; size >= 8; size -= 8, data += 8) a = _mm_crc32_u64(a, load64(data));
  for (; size > 0; --size) a = _mm_crc32_u8(static_cast<std::uint32_t>(a), *data++);
  return ~static_cast<std::uint32_t>(a);
}

}  // namespace quancrypt::simd::sse42
