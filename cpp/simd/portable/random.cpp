// ChaCha20 key stream (RFC 8439 section 2.3) and the samplers that read it. Constant time: additions,
// rotations, exclusive ors and population counts without tables.
#include <bit>
#include <cstring>

#include "simd/constant_time.h"
#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {
namespace {

std::uint32_t load_le32(const std::uint8_t* bytes) {
  return static_cast<std::uint32_t>(bytes[0]) | static_cast<std::uint32_t>(bytes[1]) << 8 |
         static_cast<std::uint32_t>(bytes[2]) << 16 | static_cast<std::uint32_t>(bytes[3]) << 24;
}

void store_le32(std::uint8_t* bytes, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

void quarter_round(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  a += b;
  d = std::rotl(d ^ a, 16);
  c += d;
  b = std::rotl(b ^ c, 12);
  a += b;
  d = std::rotl(d ^ a, 8);
  c += d;
  b = std::rotl(b ^ c, 7);
}

}  // namespace

void chacha20(const std::uint8_t key[32], const std::uint8_t nonce[12], std::uint32_t counter,
              std::uint8_t* out, std::size_t blocks) {
  std::uint32_t state[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};  // "expand 32-byte k"
  for (int i = 0; i < 8; ++i) state[4 + i] = load_le32(key + 4 * i);
  for (int i = 0; i < 3; ++i) state[13 + i] = load_le32(nonce + 4 * i);
  for (std::size_t block = 0; block < blocks; ++block, out += kChaChaBlock) {
    state[12] = counter + static_cast<std::uint32_t>(block);
    std::uint32_t v[16];
    std::memcpy(v, state, sizeof(v));
    for (int round = 0; round < 10; ++round) {
      quarter_round(v[0], v[4], v[8], v[12]);
      quarter_round(v[1], v[5], v[9], v[13]);
      quarter_round(v[2], v[6], v[10], v[14]);
      quarter_round(v[3], v[7], v[11], v[15]);
      quarter_round(v[0], v[5], v[10], v[15]);
      quarter_round(v[1], v[6], v[11], v[12]);
      quarter_round(v[2], v[7], v[8], v[13]);
      quarter_round(v[3], v[4], v[9], v[14]);
    }
    for (int i = 0; i < 16; ++i) store_le32(out + 4 * i, v[i] + state[i]);
  }
}

void sample_centred_binomial(const std::uint8_t* random, std::int8_t* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i, random += 6) {
    // Two 3-byte words of which the low 21 bits count, as in SEAL's sample_poly_cbd.
    const std::uint32_t plus =
        (static_cast<std::uint32_t>(random[0]) | static_cast<std::uint32_t>(random[1]) << 8 |
         static_cast<std::uint32_t>(random[2] & 0x1F) << 16);
    const std::uint32_t minus =
        (static_cast<std::uint32_t>(random[3]) | static_cast<std::uint32_t>(random[4]) << 8 |
         static_cast<std::uint32_t>(random[5] & 0x1F) << 16);
    // std::popcount would be a table look-up on a CPU without the instruction: count in words.
    const auto count = [](std::uint32_t x) {
      x -= (x >> 1) & 0x55555555;
      x = (x & 0x33333333) + ((x >> 2) & 0x33333333);
      x = (x + (x >> 4)) & 0x0F0F0F0F;
      return static_cast<int>((x * 0x01010101U) >> 24);
    };
    out[i] = static_cast<std::int8_t>(count(plus) - count(minus));
  }
}

std::size_t sample_ternary(const std::uint8_t* random, std::int8_t* out, std::size_t n) {
  std::size_t first_rejected = n;
  for (std::size_t i = n; i-- > 0;) {
    const std::uint32_t draw = load_le32(random + 4 * i);
    out[i] =
        static_cast<std::int8_t>(static_cast<std::int32_t>((draw * std::uint64_t{3}) >> 32) - 1);
    const bool rejected = draw == 0;
    QUANCRYPT_DECLASSIFY(zero_draw, &rejected, sizeof(rejected));
    if (rejected) first_rejected = i;
  }
  return first_rejected;
}

}  // namespace quancrypt::simd::portable
