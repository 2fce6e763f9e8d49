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
  const std::size_t n = ring.degree();
  for (std::size_t i = 0; i < primes; ++i) {
    std::uint64_t* out = residues + i * n;
    simd::kernels().unpack_bits(in, n, ring.modulus(i).bits, out);
    const std::size_t bad = simd::kernels().find_not_below(out, n, ring.modulus(i).p);
    if (bad != n) {
      throw Error(ErrorCode::wire_format, "residue " + std::to_string(bad) + " modulo prime " +
                                              std::to_string(i) + " is not below the prime");
    }
    in += n / 8 * ring.modulus(i).bits;
  }
}

}  // namespace quancrypt
