#include "rlwe/encryptor.h"

#include <algorithm>
#include <vector>

#include "base/thread_pool.h"
#include "ring/samplers.h"
#include "rlwe/body.h"
#include "simd/arith.h"
#include "simd/dispatch.h"

namespace quancrypt {
namespace {

/// Buffers of one worker. All of them hold secrets at some time.
struct Workspace {
  SecureBuffer<std::uint64_t> residues;  // [data primes][degree]: m, then c0
  SecureBuffer<std::uint64_t> mask;      // [degree]: c1 modulo one prime
  SecureBuffer<std::int8_t> small;       // [degree]: e or u
  SecureBuffer<std::uint8_t> random;     // 6 bytes a coefficient
  // Public key only.
  SecureBuffer<std::uint64_t> u;          // [all primes][degree], NTT form
  SecureBuffer<std::uint64_t> remainder;  // [degree]: modulo the special prime

  void prepare(const Parameters& parameters, bool public_key) {
    if (residues.size() > 0) return;
    const std::size_t n = parameters.degree();
    residues = SecureBuffer<std::uint64_t>(parameters.data_primes() * n);
    mask = SecureBuffer<std::uint64_t>(n);
    small = SecureBuffer<std::int8_t>(n);
    random = SecureBuffer<std::uint8_t>(6 * n);
    if (public_key) {
      u = SecureBuffer<std::uint64_t>(parameters.ring().prime_count() * n);
      remainder = SecureBuffer<std::uint64_t>(n);
    }
  }
};

/// -P^-1 modulo a data prime, P the special prime, and what kernels want with it.
struct Division {
  std::uint64_t half;  // (P - 1) / 2 mod p
  std::uint64_t factor;
  std::uint64_t factor_shoup;
};

std::vector<Division> divisions(const RnsRing& ring, std::size_t primes) {
  std::vector<Division> out;
  if (primes == ring.prime_count()) return out;
  const std::uint64_t special = ring.modulus(primes).p;
  for (std::size_t i = 0; i < primes; ++i) {
    const Modulus& modulus = ring.modulus(i);
    const std::uint64_t factor = modulus.p - inverse_mod(special % modulus.p, modulus);
    out.push_back({(special >> 1) % modulus.p, factor, simd::shoup(factor, modulus)});
  }
  return out;
}

/// One polynomial of an encryption of m, over the data primes: SEAL encrypts zero modulo all primes,
/// x = u pk + e, divides by the special prime P with rounding and adds m,
///
///     (x - (((x + h) mod P) - h)) / P + m,    h = (P - 1) / 2.
///
/// Modular arithmetic is exact, so the same residues come out of
///
///     u (pk / P) + NTT(m - (((INTT(u pk mod P) + e + h) mod P) - h - e) / P),
///
/// with one transform a data prime instead of three. w.residues holds m in coefficient form and
/// becomes the result in NTT form; w.small holds e. Without a special prime: u pk + NTT(m + e).
void finish_polynomial(const PublicKey& key, std::size_t j, const std::vector<Division>& division,
                       Workspace& w) {
  const Parameters& parameters = *key.parameters();
  const RnsRing& ring = parameters.ring();
  const simd::KernelTable& kernels = simd::kernels();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  std::uint64_t* scratch = w.mask.data();
  if (!division.empty()) {
    const Modulus& special = ring.modulus(primes);
    std::uint64_t* x = w.remainder.data();
    std::fill_n(x, n, std::uint64_t{0});
    kernels.multiply_add(x, key.ntt(j, primes), w.u.data() + primes * n, x, n, special);
    kernels.ntt_inverse(x, ring.ntt(primes));
    kernels.lift_small(scratch, w.small.data(), n, special);
    kernels.add(x, scratch, n, special);
    // Minus (P - h) is plus h.
    kernels.remainder(x, reinterpret_cast<const std::int64_t*>(x), special.p - (special.p >> 1), n,
                      special);
  }
  for (std::size_t i = 0; i < primes; ++i) {
    const Modulus& modulus = ring.modulus(i);
    std::uint64_t* row = w.residues.data() + i * n;
    if (division.empty()) {
      kernels.lift_small(scratch, w.small.data(), n, modulus);
      kernels.add(row, scratch, n, modulus);
    } else {
      kernels.remainder(scratch, reinterpret_cast<const std::int64_t*>(w.remainder.data()),
                        division[i].half, n, modulus);
      kernels.subtract_small(scratch, w.small.data(), n, modulus);
      kernels.scale_add(row, scratch, division[i].factor, division[i].factor_shoup, n, modulus);
    }
    kernels.ntt_forward(row, ring.ntt(i));
    kernels.multiply_add(row, key.scaled_ntt(j, i), w.u.data() + i * n, row, n, modulus);
  }
}

}  // namespace

std::vector<std::uint32_t> encrypt_symmetric(const SecretKey& key, PlaintextSource& source,
                                             std::size_t ciphertexts, const Seed& public_seed,
                                             const Seed& noise_seed, std::uint8_t* body) {
  const Parameters& parameters = *key.parameters();
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  std::vector<std::uint32_t> checksums(ciphertexts);
  std::vector<Workspace> workspaces(source.workers());
  parallel_for(ciphertexts, workspaces.size(), [&](std::size_t index, std::size_t worker) {
    Workspace& w = workspaces[worker];
    w.prepare(parameters, false);
    source.fill(index, worker, w.residues.data());
    Prng prng(noise_seed, {index, kSecretPart});
    sample_centred_binomial(prng, w.small.data(), n, w.random.data());
    for (std::size_t i = 0; i < primes; ++i) {
      std::uint64_t* row = w.residues.data() + i * n;
      const Modulus& modulus = ring.modulus(i);
      kernels.subtract_small(row, w.small.data(), n, modulus);
      kernels.ntt_forward(row, ring.ntt(i));
      expand_c1(parameters, public_seed, index, i, w.mask.data());
      kernels.multiply_subtract(row, w.mask.data(), key.ntt(i), row, n, modulus);
    }
    checksums[index] = write_polynomial(parameters, w.residues.data(), index, body);
  });
  return checksums;
}

std::vector<std::uint32_t> encrypt_public(const PublicKey& key, PlaintextSource& source,
                                          std::size_t ciphertexts, const Seed& noise_seed,
                                          std::uint8_t* body) {
  const Parameters& parameters = *key.parameters();
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  const std::vector<Division> division = divisions(ring, primes);
  std::vector<std::uint32_t> checksums(2 * ciphertexts);
  std::vector<Workspace> workspaces(source.workers());
  parallel_for(ciphertexts, workspaces.size(), [&](std::size_t index, std::size_t worker) {
    Workspace& w = workspaces[worker];
    w.prepare(parameters, true);
    Prng prng(noise_seed, {index, kSecretPart});
    sample_ternary(prng, w.small.data(), n, w.random.data());
    for (std::size_t i = 0; i < ring.prime_count(); ++i) {
      std::uint64_t* u = w.u.data() + i * n;
      kernels.lift_small(u, w.small.data(), n, ring.modulus(i));
      kernels.ntt_forward(u, ring.ntt(i));
    }
    for (std::size_t j = 0; j < 2; ++j) {
      if (j == 0) {
        source.fill(index, worker, w.residues.data());
      } else {
        std::fill_n(w.residues.data(), primes * n, std::uint64_t{0});
      }
      sample_centred_binomial(prng, w.small.data(), n, w.random.data());
      finish_polynomial(key, j, division, w);
      checksums[2 * index + j] =
          write_polynomial(parameters, w.residues.data(), 2 * index + j, body);
    }
  });
  return checksums;
}

}  // namespace quancrypt
