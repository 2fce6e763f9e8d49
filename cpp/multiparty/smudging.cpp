#include "multiparty/smudging.h"

#include <algorithm>

#include "simd/arith.h"
#include "simd/dispatch.h"

namespace quancrypt {
namespace {

/// The largest k with 2^k below each of the first `primes` primes.
unsigned bits_below(const RnsRing& ring, std::size_t primes) {
  std::uint32_t least = kMaxPrimeBits;
  for (std::size_t i = 0; i < primes; ++i) least = std::min(least, ring.modulus(i).bits);
  return least - 1;
}

}  // namespace

Smudging::Smudging(const RnsRing& ring, std::size_t primes, unsigned bits)
    : ring_(ring),
      bits_(bits),
      word_bits_(bits_below(ring, primes)),
      words_((bits + word_bits_) / word_bits_ * ring.degree()) {}

void Smudging::sample(Prng& prng) {
  const std::size_t n = ring_.degree();
  prng.read(reinterpret_cast<std::uint8_t*>(words_.data()), words_.size() * sizeof(std::uint64_t));
  unsigned left = bits_ + 1;
  for (std::uint64_t* word = words_.data(); word != words_.data() + words_.size(); word += n) {
    const unsigned width = std::min(left, word_bits_);
    const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
    for (std::size_t c = 0; c < n; ++c) word[c] &= mask;
    left -= width;
  }
}

void Smudging::residues(std::size_t i, std::uint64_t* out) const {
  const simd::KernelTable& kernels = simd::kernels();
  const Modulus& modulus = ring_.modulus(i);
  const std::size_t n = ring_.degree();
  std::fill_n(out, n, modulus.p - power_mod(2, bits_, modulus));  // 2^bits is no multiple of p
  kernels.add(out, words_.data(), n, modulus);
  for (std::size_t j = 1; j < words_.size() / n; ++j) {
    const std::uint64_t weight = power_mod(2, j * word_bits_, modulus);
    kernels.scale_add(out, words_.data() + j * n, weight, simd::shoup(weight, modulus.p), n,
                      modulus);
  }
}

}  // namespace quancrypt
