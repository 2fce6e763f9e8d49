// Bit-packed residues: every kernel set unpacks and packs the same, at every width and any length.
#include <cstring>
#include <vector>

#include "input.h"
#include "simd/dispatch.h"

using namespace quancrypt;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<const simd::KernelTable*> sets = simd::available_kernels();
  fuzz::Input input(data, size);
  const std::uint32_t bits = 1 + input.byte() % 60;
  const std::size_t count = 8 * (input.byte() % 17);  // residues; a multiple of 8, as on the wire
  const std::uint64_t bound = input.number(8);
  const fuzz::Bytes packed = input.tiled(count / 8 * bits);

  const simd::KernelTable& reference = *sets.back();  // portable
  std::vector<std::uint64_t> expected(count);
  reference.unpack_bits(packed.data(), count, bits, expected.data());
  const std::size_t first = reference.find_not_below(expected.data(), count, bound);
  for (std::size_t i = 0; i < count; ++i) {
    fuzz::require(expected[i] >> bits == 0, "an unpacked number has too many bits");
    if (i < first) fuzz::require(expected[i] < bound, "a number not below the bound was passed");
  }
  if (first < count) fuzz::require(expected[first] >= bound, "a number below the bound was found");
  for (const simd::KernelTable* set : sets) {
    std::vector<std::uint64_t> numbers(count);
    set->unpack_bits(packed.data(), count, bits, numbers.data());
    fuzz::require(numbers == expected, "kernel sets unpack differently");
    fuzz::require(set->find_not_below(numbers.data(), count, bound) == first,
                  "kernel sets find another number out of range");
    const fuzz::Bytes again(packed.size());
    set->pack_bits(numbers.data(), count, bits, again.data());
    fuzz::require(
        packed.size() == 0 || std::memcmp(again.data(), packed.data(), packed.size()) == 0,
        "packing is not the inverse of unpacking");
  }
  return 0;
}
