// CRC-32C: every kernel set, in one go, in two, and joined out of pieces of any length.
#include "wire/checksum.h"

#include <algorithm>
#include <vector>

#include "input.h"
#include "simd/dispatch.h"

using namespace quancrypt;

namespace {

/// The definition, bit by bit.
std::uint32_t by_definition(const std::uint8_t* data, std::size_t size) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
  }
  return ~crc;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<const simd::KernelTable*> sets = simd::available_kernels();
  fuzz::Input input(data, size);
  const std::size_t piece = 1 + input.number(2) % 256;
  const std::size_t split = input.byte();
  const bool joined = input.byte() % 16 == 0;  // its table takes longer than all else here
  const fuzz::Bytes text = input.rest();
  const std::uint32_t expected = by_definition(text.data(), text.size());
  const std::size_t first = std::min(split, text.size());
  for (const simd::KernelTable* set : sets) {
    fuzz::require(set->crc32c(0, text.data(), text.size()) == expected, "a wrong checksum");
    const std::uint32_t before = set->crc32c(0, text.data(), first);
    fuzz::require(set->crc32c(before, text.data() + first, text.size() - first) == expected,
                  "a checksum that goes on is another");
  }
  if (!joined || piece > text.size()) return 0;
  const Crc32cJoin join(piece);
  const std::uint32_t before = sets.back()->crc32c(0, text.data(), text.size() - piece);
  const std::uint32_t after = sets.back()->crc32c(0, text.data() + text.size() - piece, piece);
  fuzz::require(join(before, after) == expected, "joined checksums are not that of the whole");
  return 0;
}
