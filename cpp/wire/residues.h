// Polynomials on the wire: residue after residue at exactly ceil(log2 p) bits, prime after prime.
// Sized buffers only; whatever has structure (headers, shapes) is parsed in Python.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ring/ring.h"

namespace quancrypt {

/// Bytes of one polynomial modulo the first `primes` primes.
std::size_t polynomial_bytes(const RnsRing& ring, std::size_t primes);

/// residues[i * degree + c] in [0, p_i) -> polynomial_bytes(ring, primes) bytes.
void pack_polynomial(const RnsRing& ring, std::size_t primes, const std::uint64_t* residues,
                     std::uint8_t* out);

/// Residues modulo prime i, from number `first` on, as many as fit whole bytes: `count` is a multiple of
/// 8, `in` is where they stand. Throws as unpack_polynomial.
void unpack_residues(const RnsRing& ring, std::size_t i, std::size_t first, std::size_t count,
                     const std::uint8_t* in, std::uint64_t* residues);

/// The inverse. Throws Error(wire_format) at a residue that is not below its prime.
void unpack_polynomial(const RnsRing& ring, std::size_t primes, const std::uint8_t* in,
                       std::uint64_t* residues);

}  // namespace quancrypt
