// The body of an encrypted update: ciphertext after ciphertext, each c0 then c1, bit-packed; c1 is
// left out and expanded from the update's seed in fresh symmetric encryptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "ring/prng.h"
#include "rlwe/parameters.h"

namespace quancrypt {

struct BodyView {
  const std::uint8_t* data;
  std::size_t size;
  std::optional<Seed> seed;  ///< of c1
};

/// Bytes of a body of `ciphertexts` ciphertexts.
std::size_t body_bytes(const Parameters& parameters, std::size_t ciphertexts, bool seeded);

/// Throws Error(wire_format) unless the size is right for `ciphertexts`.
void check_body_size(const Parameters& parameters, const BodyView& body, std::size_t ciphertexts);

/// Throws Error(wire_format) unless every residue is below its prime.
void check_residues(const Parameters& parameters, const BodyView& body, std::size_t ciphertexts);

/// Where c0 (part = 0) or c1 (part = 1) of one ciphertext stands; not for a seeded c1.
const std::uint8_t* polynomial_data(const Parameters& parameters, const BodyView& body,
                                    std::size_t ciphertext, std::size_t part);

/// Residues of c0 (part = 0) or c1 (part = 1) of one ciphertext, NTT form, data primes.
void read_polynomial(const Parameters& parameters, const BodyView& body, std::size_t ciphertext,
                     std::size_t part, std::uint64_t* residues);

/// Serializes polynomial number `index` of a body from its residues; returns its CRC-32C.
std::uint32_t write_polynomial(const Parameters& parameters, const std::uint64_t* residues,
                               std::size_t index, std::uint8_t* body);

/// c1 modulo data prime i of a seeded ciphertext.
void expand_c1(const Parameters& parameters, const Seed& seed, std::size_t ciphertext,
               std::size_t i, std::uint64_t* out);

}  // namespace quancrypt
