#include "rlwe/encryptor.h"

#include <algorithm>
#include <vector>

#include "base/thread_pool.h"
#include "ring/samplers.h"
#include "rlwe/body.h"
#include "simd/arith.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

namespace quancrypt {
namespace {

/// Buffers of one worker. All of them hold secrets at some time.
struct Workspace {
  SecureBuffer<std::uint64_t> residues;  // [data primes][degree]: m, then c0
  SecureBuffer<std::uint64_t> mask;      // [degree]: c1 modulo one prime
  SecureBuffer<std::int8_t> small;       // [degree]: e or u
  SecureBuffer<std::uint8_t> random;     // 6 bytes a coefficient
  SecureBuffer<std::uint64_t> product;   // [2][all primes][degree], public key only

  void prepare(const Parameters& parameters, bool with_product) {
    if (residues.size() > 0) return;
    const std::size_t n = parameters.degree();
    residues = SecureBuffer<std::uint64_t>(parameters.data_primes() * n);
    mask = SecureBuffer<std::uint64_t>(n);
    small = SecureBuffer<std::int8_t>(n);
    random = SecureBuffer<std::uint8_t>(6 * n);
    if (with_product) {
      product = SecureBuffer<std::uint64_t>(2 * parameters.ring().prime_count() * n);
    }
  }
};

/// Divides the polynomial in `x` [all primes][degree], NTT form, by the special (last) prime P,
/// rounding to nearest: (x + (P - 1) / 2 - ((x + (P - 1) / 2) mod P)) / P. The result stands in the
/// data primes' rows.
void divide_by_special_prime(const RnsRing& ring, std::uint64_t* x, std::uint64_t* scratch) {
  const simd::KernelTable& kernels = simd::kernels();
  const std::size_t n = ring.degree();
  const std::size_t last = ring.prime_count() - 1;
  const std::uint64_t special = ring.modulus(last).p;
  const std::uint64_t half = special >> 1;
  std::uint64_t* remainder = x + last * n;
  kernels.ntt_inverse(remainder, ring.ntt(last));
  for (std::size_t c = 0; c < n; ++c) remainder[c] = simd::add_mod(remainder[c], half, special);
  for (std::size_t i = 0; i < last; ++i) {
    const Modulus& modulus = ring.modulus(i);
    const std::uint64_t half_mod = half % modulus.p;
    for (std::size_t c = 0; c < n; ++c) {
      scratch[c] = simd::sub_mod(simd::reduce_128(remainder[c], modulus), half_mod, modulus.p);
    }
    kernels.ntt_forward(scratch, ring.ntt(i));
    const std::uint64_t inverse = inverse_mod(special % modulus.p, modulus);
    const std::uint64_t inverse_shoup = simd::shoup(inverse, modulus.p);
    std::uint64_t* row = x + i * n;
    for (std::size_t c = 0; c < n; ++c) {
      const std::uint64_t difference = simd::sub_mod(row[c], scratch[c], modulus.p);
      row[c] = simd::reduce_once(simd::multiply_lazy(difference, inverse, inverse_shoup, modulus.p),
                                 modulus.p);
    }
  }
}

}  // namespace

void encrypt_symmetric(const SecretKey& key, PlaintextSource& source, std::size_t ciphertexts,
                       const Seed& public_seed, const Seed& noise_seed, std::uint8_t* body) {
  const Parameters& parameters = *key.parameters();
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  std::vector<Workspace> workspaces(num_threads());
  parallel_for(ciphertexts, [&](std::size_t index, std::size_t worker) {
    Workspace& w = workspaces[worker];
    w.prepare(parameters, false);
    source.fill(index, worker, w.residues.data());
    Prng prng(noise_seed, {index, kSecretPart});
    sample_centred_binomial(prng, w.small.data(), n, w.random.data());
    for (std::size_t i = 0; i < primes; ++i) {
      std::uint64_t* row = w.residues.data() + i * n;
      const Modulus& modulus = ring.modulus(i);
      if (source.form() == PlaintextForm::coefficients) {
        kernels.subtract_small(row, w.small.data(), n, modulus);
        kernels.ntt_forward(row, ring.ntt(i));
      } else {
        std::fill_n(w.mask.data(), n, std::uint64_t{0});
        kernels.subtract_small(w.mask.data(), w.small.data(), n, modulus);
        kernels.ntt_forward(w.mask.data(), ring.ntt(i));
        kernels.add(row, w.mask.data(), n, modulus);
      }
      expand_c1(parameters, public_seed, index, i, w.mask.data());
      kernels.multiply_subtract(row, w.mask.data(), key.ntt(i), row, n, modulus);
    }
    pack_polynomial(ring, primes, w.residues.data(), body + index * parameters.polynomial_bytes());
  });
}

void encrypt_public(const PublicKey& key, PlaintextSource& source, std::size_t ciphertexts,
                    const Seed& noise_seed, std::uint8_t* body) {
  const Parameters& parameters = *key.parameters();
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t all = ring.prime_count();
  const std::size_t primes = parameters.data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  std::vector<Workspace> workspaces(num_threads());
  parallel_for(ciphertexts, [&](std::size_t index, std::size_t worker) {
    Workspace& w = workspaces[worker];
    w.prepare(parameters, true);
    std::uint64_t* part[2] = {w.product.data(), w.product.data() + all * n};
    std::uint64_t* lifted = w.mask.data();
    Prng prng(noise_seed, {index, kSecretPart});
    sample_ternary(prng, w.small.data(), n, w.random.data());
    for (std::size_t i = 0; i < all; ++i) {
      lift_small(w.small.data(), n, ring.modulus(i).p, lifted);
      kernels.ntt_forward(lifted, ring.ntt(i));
      for (std::size_t j = 0; j < 2; ++j) {
        std::uint64_t* row = part[j] + i * n;
        std::fill_n(row, n, std::uint64_t{0});
        kernels.multiply_add(row, key.ntt(j, i), lifted, row, n, ring.modulus(i));
      }
    }
    for (std::size_t j = 0; j < 2; ++j) {
      sample_centred_binomial(prng, w.small.data(), n, w.random.data());
      for (std::size_t i = 0; i < all; ++i) {
        lift_small(w.small.data(), n, ring.modulus(i).p, lifted);
        kernels.ntt_forward(lifted, ring.ntt(i));
        kernels.add(part[j] + i * n, lifted, n, ring.modulus(i));
      }
      if (all > primes) divide_by_special_prime(ring, part[j], lifted);
    }
    source.fill(index, worker, w.residues.data());
    for (std::size_t i = 0; i < primes; ++i) {
      std::uint64_t* row = w.residues.data() + i * n;
      if (source.form() == PlaintextForm::coefficients) kernels.ntt_forward(row, ring.ntt(i));
      kernels.add(part[0] + i * n, row, n, ring.modulus(i));
    }
    for (std::size_t j = 0; j < 2; ++j) {
      pack_polynomial(ring, primes, part[j],
                      body + (2 * index + j) * parameters.polynomial_bytes());
    }
  });
}

}  // namespace quancrypt
