#include "multiparty/smudging.h"

#include <algorithm>

#include "simd/arith.h"
#include "simd/dispatch.h"

namespace quancrypt {
Smudging::Smudging(const RnsRing& ring, unsigned bits) : ring_(ring), bits_(bits) {
  constexpr unsigned kMost = 50;  // bits that scale_add takes of a word that is not reduced
  const unsigned words = (bits + kMost) / kMost;  // all of about the same width
  word_bits_ = (bits + words) / words;
  packed_ = SecureBuffer<std::uint8_t>(ring.degree() / 8 * word_bits_);
  words_ = SecureBuffer<std::uint64_t>(words * ring.degree());
}

void Smudging::sample(Prng& prng) {
  const std::size_t n = ring_.degree();
  unsigned left = bits_ + 1;
  for (std::uint64_t* word = words_.data(); word != words_.data() + words_.size(); word += n) {
    const unsigned width = std::min(left, word_bits_);
    prng.read(packed_.data(), n / 8 * width);
    simd::kernels().unpack_bits(packed_.data(), n, width, word);
    left -= width;
  }
}

void Smudging::residues(std::size_t i, std::uint64_t* out) const {
  const simd::KernelTable& kernels = simd::kernels();
  const Modulus& modulus = ring_.modulus(i);
  const std::size_t n = ring_.degree();
  std::fill_n(out, n, modulus.p - power_mod(2, bits_, modulus));  // 2^bits is no multiple of p
  for (std::size_t j = 0; j < words_.size() / n; ++j) {
    const std::uint64_t weight = power_mod(2, j * word_bits_, modulus);
    kernels.scale_add(out, words_.data() + j * n, weight, simd::shoup(weight, modulus), n, modulus);
  }
}

}  // namespace quancrypt
