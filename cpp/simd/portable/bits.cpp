// Residues at exactly ceil(log2 p) bits on the wire, and the checksum over the wire's bytes.
#include <array>
#include <cstring>

#include "simd/arith.h"
#include "simd/constant_time.h"
#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, reflected

/// table[0] is the byte-wise table; table[k] advances a byte k positions further (slicing by 8).
constexpr std::array<std::array<std::uint32_t, 256>, 8> make_crc_tables() {
  std::array<std::array<std::uint32_t, 256>, 8> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (kPolynomial & (0U - (crc & 1)));
    table[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t crc = table[k - 1][byte];
      table[k][byte] = (crc >> 8) ^ table[0][crc & 0xFF];
    }
  }
  return table;
}

constexpr auto kCrc = make_crc_tables();

}  // namespace

void pack_bits(const std::uint64_t* x, std::size_t n, std::uint32_t bits, std::uint8_t* out) {
  u128 buffer = 0;
  std::uint32_t filled = 0;
  for (std::size_t i = 0; i < n; ++i) {
    buffer |= static_cast<u128>(x[i]) << filled;
    filled += bits;
    while (filled >= 8) {
      *out++ = static_cast<std::uint8_t>(buffer);
      buffer >>= 8;
      filled -= 8;
    }
  }
}

void unpack_bits(const std::uint8_t* in, std::size_t n, std::uint32_t bits, std::uint64_t* out) {
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  u128 buffer = 0;
  std::uint32_t filled = 0;
  for (std::size_t i = 0; i < n; ++i) {
    while (filled < bits) {
      buffer |= static_cast<u128>(*in++) << filled;
      filled += 8;
    }
    out[i] = static_cast<std::uint64_t>(buffer) & mask;
    buffer >>= bits;
    filled -= bits;
  }
}

bool add_bits(const std::uint8_t* in, std::size_t n, bool negative, std::uint64_t* sum,
              const Modulus& modulus) {
  const std::uint64_t p = modulus.p;
  std::uint64_t x[8];
  std::uint64_t out_of_range = 0;
  for (std::size_t i = 0; i < n; i += 8, in += modulus.bits) {
    unpack_bits(in, 8, modulus.bits, x);
    for (std::size_t j = 0; j < 8; ++j) {
      const std::uint64_t below = (x[j] - p) >> 63;  // x < 2^60
      const std::uint64_t value = x[j] & (0 - below);
      sum[i + j] = negative ? sub_mod(sum[i + j], value, p) : add_mod(sum[i + j], value, p);
      out_of_range |= below ^ 1;
    }
  }
  // They may be a secret mask: do not leave them on the stack.
  std::memset(x, 0, sizeof(x));
  asm volatile("" : : "r"(x) : "memory");
  QUANCRYPT_DECLASSIFY(large_draw, &out_of_range, sizeof(out_of_range));
  return out_of_range == 0;
}

std::uint32_t crc32c(std::uint32_t crc, const std::uint8_t* data, std::size_t size) {
  crc = ~crc;
  for (; size >= 8; size -= 8, data += 8) {
    const std::uint32_t low =
        crc ^
        (static_cast<std::uint32_t>(data[0]) | static_cast<std::uint32_t>(data[1]) << 8 |
         static_cast<std::uint32_t>(data[2]) << 16 | static_cast<std::uint32_t>(data[3]) << 24);
    crc = kCrc[7][low & 0xFF] ^ kCrc[6][(low >> 8) & 0xFF] ^ kCrc[5][(low >> 16) & 0xFF] ^
          kCrc[4][low >> 24] ^ kCrc[3][data[4]] ^ kCrc[2][data[5]] ^ kCrc[1][data[6]] ^
          kCrc[0][data[7]];
  }
  for (; size > 0; --size) crc = (crc >> 8) ^ kCrc[0][(crc ^ *data++) & 0xFF];
  return ~crc;
}

}  // namespace quancrypt::simd::portable
