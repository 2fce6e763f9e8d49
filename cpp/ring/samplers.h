// Distributions over ring elements, each out of one stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/secure_buffer.h"
#include "ring/primes.h"
#include "ring/prng.h"

namespace quancrypt {

/// Uniform modulo p: the stream is read as `modulus.bits`-bit little-endian numbers; the i-th number
/// that is not below p is replaced by the i-th number below p after the first n. This expansion is
/// part of the wire format (seeded ciphertexts): it never changes within a format version.
/// Variable time in the rejected draws: for public polynomials only.
void sample_uniform(Prng& prng, std::uint64_t* out, std::size_t n, const Modulus& modulus);

/// sum = sum + factor x modulo p, x uniform and secret, out of `prng`; factor in [1, p). A stream of
/// its own: not what sample_uniform reads. n is a multiple of 512. Time depends on which draws are
/// rejected, which is independent of those that are kept.
void add_scaled_uniform(Prng& prng, std::uint64_t* sum, std::size_t n, std::uint64_t factor,
                        const Modulus& modulus);

/// Numbers that the two functions for secret draws read at a time.
inline constexpr std::size_t kUniformPiece = 512;

/// Memory of add_uniform, one thread's.
struct UniformScratch {
  SecureBuffer<std::uint8_t> bytes{kUniformPiece / 8 * kMaxPrimeBits};
  SecureBuffer<std::uint64_t> numbers{kUniformPiece};
  SecureBuffer<std::uint64_t> draws{8};
};

/// sum[kUniformPiece] = sum + x modulo p, or sum - x, for the next x that add_scaled_uniform reads; all
/// else as there.
void add_uniform(Prng& prng, std::uint64_t* sum, bool negative, const Modulus& modulus,
                 UniformScratch& scratch);

/// Uniform on {-1, 0, 1}, one 32-bit word a draw (the draws of SEAL's sample_poly_ternary).
/// `scratch` holds 4 n bytes.
void sample_ternary(Prng& prng, std::int8_t* out, std::size_t n, std::uint8_t* scratch);

/// Centred binomial, standard deviation 3.24, |e| <= 21. `scratch` holds 6 n bytes.
void sample_centred_binomial(Prng& prng, std::int8_t* out, std::size_t n, std::uint8_t* scratch);

}  // namespace quancrypt
