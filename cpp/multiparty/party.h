// One party of a threshold key: its part of the joint secret, and its Shamir share of the whole.
//
// The joint secret is s = s_1 + ... + s_n, each s_i ternary and known to party i alone. Party i shares
// s_i by f_i(X) = s_i + r_1 X + ... + r_{t-1} X^{t-1} over R_q, q the data modulus; party j, at point
// j + 1, keeps the sum of all f_i(j + 1), which is its share of s. NTT form throughout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "rlwe/body.h"
#include "rlwe/keys.h"

namespace quancrypt {

/// Noise that two participants of a decryption add and take off again.
struct PairMask {
  Seed seed;
  bool negative;
};

class Party {
 public:
  /// Fresh secrets. The party's own deal to itself is received already.
  /// Throws Error(parameter) unless 1 <= point <= parties and 1 <= threshold <= parties, for
  /// parameters that were made for so many parties.
  Party(ParametersPtr parameters, std::size_t point, std::size_t threshold);
  /// From save()'s bytes. Throws Error(wire_format).
  static Party load(ParametersPtr parameters, std::size_t point, std::size_t threshold,
                    const std::uint8_t* data, std::size_t size);
  /// Everything secret: the ternary secret, two seeds, the share as far as it was received.
  [[nodiscard]] SecureBuffer<std::uint8_t> save() const;

  /// b = -(a s + e) modulo all primes, bit-packed; a is expanded from `common` as in PublicKey. The
  /// same bytes in every call.
  [[nodiscard]] std::vector<std::uint8_t> public_share(const Seed& common) const;
  /// f(point), bit-packed: parameters.polynomial_bytes() bytes. Secret; the same in every call.
  void deal(std::size_t point, std::uint8_t* out) const;
  /// Adds another party's deal. Throws Error(wire_format); the share is then unchanged.
  void receive(const std::uint8_t* data, std::size_t size);

  /// lambda c1 (share) + smudging + masks, for each ciphertext of `body`, which holds both polynomials.
  /// Writes parameters.polynomial_bytes() a ciphertext; returns the CRC-32C of each. `points`: of all
  /// participants; `masks`: one for each other participant, known to those two. `request`: of this
  /// ciphertext and these participants, known to this party alone; smudging comes out of it and of the
  /// operating system's randomness, so that it is another for another request even if that repeats.
  std::vector<std::uint32_t> partial_decryption(const BodyView& body, std::size_t ciphertexts,
                                                const std::vector<std::size_t>& points,
                                                const SecureBuffer<PairMask>& masks,
                                                const Seed& request, std::uint8_t* out) const;

  [[nodiscard]] const ParametersPtr& parameters() const noexcept { return parameters_; }

 private:
  Party(ParametersPtr parameters, std::size_t point, std::size_t threshold, SecretKey secret);
  /// row[degree] += f(point) modulo data prime i.
  void add_deal(std::size_t point, std::size_t i, std::uint64_t* row) const;

  ParametersPtr parameters_;
  std::size_t point_;
  std::size_t threshold_;
  SecretKey secret_;
  SecureBuffer<Seed> seeds_;           // of the polynomial f, of the error e
  SecureBuffer<std::uint64_t> share_;  // [data primes][degree]
};

}  // namespace quancrypt
