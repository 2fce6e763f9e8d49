#include "wire/residues.h"

#include <string>

#include "base/error.h"
#include "simd/dispatch.h"

namespace quancrypt {

std::size_t polynomial_bytes(const RnsRing& ring, std::size_t primes) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < primes; ++i) bytes += ring.degree() / 8 * ring.modulus(i).bits;
  return bytes;
}

void pack_polynomial(const RnsRing& ring, std::size_t primes, const std::uint64_t* residues,
                     std::uint8_t* out) {
  const std::size_t n = ring.degree();
  for (std::size_t i = 0; i < primes; ++i) {
    simd::kernels().pack_bits(residues + i * n, n, ring.modulus(i).bits, out);
    out += n / 8 * ring.modulus(i).bits;
  }
}

void unpack_residues(const RnsRing& ring, std::size_t i, std::size_t first, std::size_t count,
                     const std::uint8_t* in, std::uint64_t* residues) {
  const simd::KernelTable& kernels = simd::kernels();
  const Modulus& modulus = ring.modulus(i);
  kernels.unpack_bits(in, count, modulus.bits, residues);
  const std::size_t bad = kernels.find_not_below(residues, count, modulus.p);
  if (bad != count) {
    throw Error(ErrorCode::wire_format, "residue " + std::to_string(first + bad) +
                                            " modulo prime " + std::to_string(i) +
                                            " is not below the prime");
  }
}

void unpack_polynomial(const RnsRing& ring, std::size_t primes, const std::uint8_t* in,
                       std::uint64_t* residues) {
  // Piece by piece, so that the check reads what still lies in the L1 cache.
  constexpr std::size_t kPiece = 512;
  const std::size_t n = ring.degree();
  for (std::size_t i = 0; i < primes; ++i) {
    for (std::size_t done = 0; done < n; done += kPiece) {
      unpack_residues(ring, i, done, kPiece, in, residues + i * n + done);
      in += kPiece / 8 * ring.modulus(i).bits;
    }
  }
}

}  // namespace quancrypt
