// Encryption of an update, ciphertext by ciphertext on the thread pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "packing/plaintext.h"
#include "rlwe/keys.h"

namespace quancrypt {

/// c0 = m - (a s + e), c1 = a; a is expanded from `public_seed` and not written.
/// `noise_seed` must be fresh for each call: reuse reveals differences of plaintexts.
/// Writes body_bytes(parameters, ciphertexts, seeded = true) bytes; returns the CRC-32C of each
/// serialized polynomial, in order.
std::vector<std::uint32_t> encrypt_symmetric(const SecretKey& key, PlaintextSource& source,
                                             std::size_t ciphertexts, const Seed& public_seed,
                                             const Seed& noise_seed, std::uint8_t* body);

/// (c0, c1) = (pk0 u + e0, pk1 u + e1) modulo all primes, divided by the special prime and rounded
/// (where there is one), plus m: SEAL's asymmetric encryption, draw for draw.
/// Writes body_bytes(parameters, ciphertexts, seeded = false) bytes; returns as above.
std::vector<std::uint32_t> encrypt_public(const PublicKey& key, PlaintextSource& source,
                                          std::size_t ciphertexts, const Seed& noise_seed,
                                          std::uint8_t* body);

}  // namespace quancrypt
