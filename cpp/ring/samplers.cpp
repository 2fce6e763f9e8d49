#include "ring/samplers.h"

#include <cstring>
#include <vector>

#include "base/secure_buffer.h"
#include "simd/arith.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"

namespace quancrypt {

void sample_uniform(Prng& prng, std::uint64_t* out, std::size_t n, const Modulus& modulus) {
  // Eight numbers of `bits` bits are `bits` whole bytes: work in pieces that stay in the L1 cache.
  constexpr std::size_t kPiece = 512;
  const simd::KernelTable& kernels = simd::kernels();
  std::uint8_t bytes[kPiece / 8 * kMaxPrimeBits];
  std::vector<std::size_t> rejected;  // almost always empty: primes lie just under 2^bits
  for (std::size_t done = 0; done < n; done += kPiece) {
    const std::size_t count = n - done < kPiece ? n - done : kPiece;
    prng.read(bytes, count / 8 * modulus.bits);
    kernels.unpack_bits(bytes, count, modulus.bits, out + done);
    for (std::size_t i = done; i < done + count; ++i) {
      i += kernels.find_not_below(out + i, done + count - i, modulus.p);
      if (i < done + count) rejected.push_back(i);
    }
  }
  std::uint64_t draws[8];
  std::size_t next = 8;
  for (const std::size_t position : rejected) {
    do {
      if (next == 8) {
        prng.read(bytes, modulus.bits);
        kernels.unpack_bits(bytes, 8, modulus.bits, draws);
        next = 0;
      }
      out[position] = draws[next++];
    } while (out[position] >= modulus.p);
  }
}

void add_scaled_uniform(Prng& prng, std::uint64_t* sum, std::size_t n, std::uint64_t factor,
                        const Modulus& modulus) {
  // Piece by piece, and each piece added while it lies in the L1 cache.
  constexpr std::size_t kPiece = kUniformPiece;
  const simd::KernelTable& kernels = simd::kernels();
  const std::uint64_t factor_shoup = simd::shoup(factor, modulus);
  SecureBuffer<std::uint8_t> bytes(kPiece / 8 * kMaxPrimeBits);
  SecureBuffer<std::uint64_t> piece(kPiece);
  SecureBuffer<std::uint64_t> draws(8);
  const auto draw = [&](std::size_t count, std::uint64_t* out) {
    prng.read(bytes.data(), count / 8 * modulus.bits);
    QUANCRYPT_DECLASSIFY(large_draw, bytes.data(), bytes.size());  // see the header
    kernels.unpack_bits(bytes.data(), count, modulus.bits, out);
  };
  for (std::size_t done = 0; done < n; done += kPiece) {
    draw(kPiece, piece.data());
    for (std::size_t i = 0; i < kPiece; ++i) {
      i += kernels.find_not_below(piece.data() + i, kPiece - i, modulus.p);
      while (i < kPiece && piece[i] >= modulus.p) {
        draw(8, draws.data());  // seven are dropped: rejection is rare
        piece[i] = draws[0];
      }
    }
    QUANCRYPT_SECRET(piece.data(), kPiece * sizeof(std::uint64_t));
    kernels.scale_add(sum + done, piece.data(), factor, factor_shoup, kPiece, modulus);
  }
}

void add_uniform(Prng& prng, std::uint64_t* sum, bool negative, const Modulus& modulus,
                 UniformScratch& scratch) {
  const simd::KernelTable& kernels = simd::kernels();
  std::uint8_t* bytes = scratch.bytes.data();
  std::uint64_t* x = scratch.numbers.data();
  std::uint64_t* draws = scratch.draws.data();
  prng.read(bytes, kUniformPiece / 8 * modulus.bits);
  if (kernels.add_bits(bytes, kUniformPiece, negative, sum, modulus)) return;
  QUANCRYPT_DECLASSIFY(large_draw, bytes, scratch.bytes.size());  // see the header
  kernels.unpack_bits(bytes, kUniformPiece, modulus.bits, x);
  for (std::size_t i = 0; i < kUniformPiece; ++i) {
    i += kernels.find_not_below(x + i, kUniformPiece - i, modulus.p);
    if (i == kUniformPiece) break;
    do {
      prng.read(bytes, modulus.bits);
      QUANCRYPT_DECLASSIFY(large_draw, bytes, modulus.bits);
      kernels.unpack_bits(bytes, 8, modulus.bits, draws);  // seven are dropped: rejection is rare
    } while (draws[0] >= modulus.p);
    QUANCRYPT_SECRET(draws, sizeof(std::uint64_t));
    sum[i] = negative ? simd::sub_mod(sum[i], draws[0], modulus.p)
                      : simd::add_mod(sum[i], draws[0], modulus.p);
  }
}

void sample_ternary(Prng& prng, std::int8_t* out, std::size_t n, std::uint8_t* scratch) {
  prng.read(scratch, 4 * n);
  // A rejected draw (probability 2^-32) is dropped and the later ones move up, as in a loop that
  // draws again.
  for (std::size_t i = 0;;) {
    i += simd::kernels().sample_ternary(scratch + 4 * i, out + i, n - i);
    if (i == n) return;
    std::memmove(scratch + 4 * i, scratch + 4 * (i + 1), 4 * (n - i - 1));
    prng.read(scratch + 4 * (n - 1), 4);
  }
}

void sample_centred_binomial(Prng& prng, std::int8_t* out, std::size_t n, std::uint8_t* scratch) {
  prng.read(scratch, 6 * n);
  simd::kernels().sample_centred_binomial(scratch, out, n);
}

}  // namespace quancrypt
