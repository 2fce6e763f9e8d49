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

/// The inverse. Throws Error(wire_format) at a residue that is not below its prime.
void unpack_polynomial(const RnsRing& ring, std::size_t primes, const std::uint8_t* in,
                       std::uint64_t* residues);

}  // namespace quancrypt
