// Plaintexts scaled by the product of the last data primes, and back: room for noise of many words.
//
// With data primes p_0 ... p_{L-1} and D = p_{L-r} ... p_{L-1}, an inner source packs m over the first
// L - r primes; what is encrypted is D m. Noise e of a sum leaves round((D m + e) / D), which is m plus
// at most |e| / D + 1/2 + 1/p: kernels then unpack a small noise, however large e was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "packing/plaintext.h"
#include "ring/ring.h"

namespace quancrypt {

/// D times the inner source's plaintexts.
class RescaleSource final : public PlaintextSource {
 public:
  /// The first `primes` primes of `ring` are the data modulus, the last `divided` of them D.
  RescaleSource(const RnsRing& ring, std::size_t primes, std::size_t divided,
                PlaintextSource& inner);

  [[nodiscard]] std::size_t workers() const override { return inner_.workers(); }
  void fill(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

 private:
  const RnsRing& ring_;
  std::size_t primes_;
  std::size_t kept_;
  PlaintextSource& inner_;
  std::vector<std::uint64_t> zeros_;   // [degree]
  std::vector<std::uint64_t> factor_;  // [kept]: D mod p_i
};

/// Hands round(x / D), over the first primes, to the inner sink.
class RescaleSink final : public PlaintextSink {
 public:
  RescaleSink(const RnsRing& ring, std::size_t primes, std::size_t divided, PlaintextSink& inner);

  [[nodiscard]] std::size_t workers() const override { return inner_.workers(); }
  void take(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

 private:
  const RnsRing& ring_;
  std::size_t primes_;
  std::size_t kept_;
  PlaintextSink& inner_;
  std::vector<SecureBuffer<std::uint64_t>> scratch_;  // per worker, [degree]
};

}  // namespace quancrypt
