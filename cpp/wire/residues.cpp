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

void unpack_polynomial(const RnsRing& ring, std::size_t primes, const std::uint8_t* in,
                       std::uint64_t* residues) {
  // Piece by piece, so that the check reads what still lies in the L1 cache.
  constexpr std::size_t kPiece = 512;
  const simd::KernelTable& kernels = simd::kernels();
  const std::size_t n = ring.degree();
  for (std::size_t i = 0; i < primes; ++i) {
    const Modulus& modulus = ring.modulus(i);
    for (std::size_t done = 0; done < n; done += kPiece) {
      std::uint64_t* out = residues + i * n + done;
      kernels.unpack_bits(in, kPiece, modulus.bits, out);
      const std::size_t bad = kernels.find_not_below(out, kPiece, modulus.p);
      if (bad != kPiece) {
        throw Error(ErrorCode::wire_format, "residue " + std::to_string(done + bad) +
                                                " modulo prime " + std::to_string(i) +
                                                " is not below the prime");
      }
      in += kPiece / 8 * modulus.bits;
    }
  }
}

}  // namespace quancrypt
