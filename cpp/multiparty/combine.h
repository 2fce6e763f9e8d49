// What anybody does with public shares and with partial decryptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "packing/plaintext.h"
#include "rlwe/body.h"
#include "rlwe/keys.h"

namespace quancrypt {

struct ByteView {
  const std::uint8_t* data;
  std::size_t size;
};

/// The collective public key (sum of b_i, a). Throws Error(wire_format) at a malformed share.
PublicKey combine_public_shares(ParametersPtr parameters, const Seed& common,
                                const std::vector<ByteView>& shares);

/// c0 plus all parts, handed to `sink` in coefficient form.
/// Throws Error(wire_format) at a wrong size or a residue out of range.
void combine_parts(const Parameters& parameters, const BodyView& body, std::size_t ciphertexts,
                   const std::vector<ByteView>& parts, PlaintextSink& sink);

}  // namespace quancrypt
