// Known answers from standards: RFC 8439 (ChaCha20), RFC 3720 (CRC-32C); for every kernel set.
#include <cstring>
#include <numeric>

#include "check.h"
#include "ring/prng.h"
#include "simd/dispatch.h"
#include "wire/checksum.h"

using namespace quancrypt;

TEST(chacha20_block_of_rfc_8439_section_2_3_2) {
  std::uint8_t key[32];
  std::iota(key, key + 32, std::uint8_t{0});
  const std::uint8_t nonce[12] = {0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0};
  const std::uint8_t expected[64] = {
      0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3,
      0x20, 0x71, 0xc4, 0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22,
      0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e, 0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa,
      0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2, 0xb5, 0x12, 0x9c, 0xd1,
      0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e};
  for (const simd::KernelTable* set : simd::available_kernels()) {
    std::uint8_t out[64];
    set->chacha20(key, nonce, 1, out, 1);
    CHECK(std::memcmp(out, expected, 64) == 0);
  }
}

TEST(chacha20_zero_key_of_rfc_8439_appendix_a_1) {
  const std::uint8_t zero[32] = {0};
  // Test vectors #1 (counter 0) and #2 (counter 1): the first 16 bytes of each block.
  const std::uint8_t first[16] = {0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90,
                                  0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28};
  const std::uint8_t second[16] = {0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a,
                                   0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08, 0x0d};
  for (const simd::KernelTable* set : simd::available_kernels()) {
    std::uint8_t out[128];
    set->chacha20(zero, zero, 0, out, 2);
    CHECK(std::memcmp(out, first, 16) == 0);
    CHECK(std::memcmp(out + 64, second, 16) == 0);
  }
}

TEST(prng_reads_one_stream_in_pieces_of_any_size) {
  const Seed seed = {1, 2, 3};
  std::vector<std::uint8_t> whole(1000);
  Prng(seed, {7, 3}).read(whole.data(), whole.size());
  Prng prng(seed, {7, 3});
  std::vector<std::uint8_t> pieces(1000);
  for (std::size_t at = 0, size = 1; at < 1000; at += size, size = (size * 7) % 131 + 1) {
    size = std::min(size, 1000 - at);
    prng.read(pieces.data() + at, size);
  }
  CHECK(whole == pieces);
  std::vector<std::uint8_t> other(1000);
  Prng(seed, {8, 3}).read(other.data(), other.size());
  CHECK(whole != other);
}

TEST(crc32c_of_rfc_3720_appendix_b_4) {
  std::vector<std::uint8_t> zeros(32, 0);
  std::vector<std::uint8_t> ones(32, 0xFF);
  std::vector<std::uint8_t> rising(32);
  std::iota(rising.begin(), rising.end(), std::uint8_t{0});
  const std::uint8_t check[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
  for (const simd::KernelTable* set : simd::available_kernels()) {
    CHECK(set->crc32c(0, zeros.data(), 32) == 0x8A9136AA);
    CHECK(set->crc32c(0, ones.data(), 32) == 0x62A8AB43);
    CHECK(set->crc32c(0, rising.data(), 32) == 0x46DD794E);
    CHECK(set->crc32c(0, check, 9) == 0xE3069283);
    CHECK(set->crc32c(set->crc32c(0, check, 4), check + 4, 5) == 0xE3069283);
  }
}

TEST(checksums_of_pieces_join) {
  std::vector<std::uint8_t> data(5000);
  std::iota(data.begin(), data.end(), std::uint8_t{7});
  const simd::KernelTable& kernels = simd::kernels();
  for (const std::size_t piece : {1U, 3U, 64U, 1000U, 2496U}) {
    const Crc32cJoin join(piece);
    std::uint32_t crc = kernels.crc32c(0, data.data(), 8);
    std::size_t at = 8;
    for (; at + piece <= data.size(); at += piece) {
      crc = join(crc, kernels.crc32c(0, data.data() + at, piece));
    }
    CHECK(crc == kernels.crc32c(0, data.data(), at));
  }
}

int main() { return testing::run_all(); }
