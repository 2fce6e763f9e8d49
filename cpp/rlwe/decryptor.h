#pragma once

#include <cstddef>

#include "packing/plaintext.h"
#include "rlwe/body.h"
#include "rlwe/keys.h"

namespace quancrypt {

/// m = c0 + c1 s modulo the data primes, handed to `sink` in the form that it asks for.
/// Throws Error(wire_format) at a wrong size or a residue out of range.
void decrypt(const SecretKey& key, const BodyView& body, std::size_t ciphertexts,
             PlaintextSink& sink);

}  // namespace quancrypt
