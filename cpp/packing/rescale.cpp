#include "packing/rescale.h"

#include <algorithm>

#include "simd/arith.h"
#include "simd/dispatch.h"

namespace quancrypt {

RescaleSource::RescaleSource(const RnsRing& ring, std::size_t primes, std::size_t divided,
                             PlaintextSource& inner)
    : ring_(ring), primes_(primes), kept_(primes - divided), inner_(inner), zeros_(ring.degree()) {
  for (std::size_t i = 0; i < kept_; ++i) {
    const Modulus& modulus = ring.modulus(i);
    std::uint64_t product = 1;
    for (std::size_t k = kept_; k < primes_; ++k) {
      product = simd::multiply_mod(product, ring.modulus(k).p % modulus.p, modulus);
    }
    factor_.push_back(product);
  }
}

void RescaleSource::fill(std::size_t index, std::size_t worker, std::uint64_t* residues) {
  const std::size_t n = ring_.degree();
  inner_.fill(index, worker, residues);
  for (std::size_t i = 0; i < kept_; ++i) {
    const Modulus& modulus = ring_.modulus(i);
    simd::kernels().subtract_scale(residues + i * n, zeros_.data(), factor_[i],
                                   simd::shoup(factor_[i], modulus), n, modulus);
  }
  std::fill_n(residues + kept_ * n, (primes_ - kept_) * n, std::uint64_t{0});
}

RescaleSink::RescaleSink(const RnsRing& ring, std::size_t primes, std::size_t divided,
                         PlaintextSink& inner)
    : ring_(ring),
      primes_(primes),
      kept_(primes - divided),
      inner_(inner),
      scratch_(inner.workers()) {}

void RescaleSink::take(std::size_t index, std::size_t worker, std::uint64_t* residues) {
  const std::size_t n = ring_.degree();
  const simd::KernelTable& kernels = simd::kernels();
  SecureBuffer<std::uint64_t>& scratch = scratch_[worker];
  if (scratch.size() == 0) scratch = SecureBuffer<std::uint64_t>(n);
  // One prime P at a time: (x - (((x + h) mod P) - h)) / P with h = (P - 1) / 2.
  for (std::size_t k = primes_; k-- > kept_;) {
    const Modulus& last = ring_.modulus(k);
    std::uint64_t* x = residues + k * n;
    // Minus (P - h) is plus h. Residues are below 2^60: the same as signed numbers.
    kernels.remainder(x, reinterpret_cast<const std::int64_t*>(x), last.p - (last.p >> 1), n, last);
    for (std::size_t i = 0; i < k; ++i) {
      const Modulus& modulus = ring_.modulus(i);
      const std::uint64_t inverse = inverse_mod(last.p % modulus.p, modulus);
      kernels.remainder(scratch.data(), reinterpret_cast<const std::int64_t*>(x),
                        (last.p >> 1) % modulus.p, n, modulus);
      kernels.subtract_scale(residues + i * n, scratch.data(), inverse,
                             simd::shoup(inverse, modulus), n, modulus);
    }
  }
  inner_.take(index, worker, residues);
}

}  // namespace quancrypt
