#include "rlwe/keys.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "ring/samplers.h"
#include "simd/arith.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

namespace quancrypt {

SecretKey::SecretKey(ParametersPtr parameters, SecureBuffer<std::int8_t> coefficients)
    : parameters_(std::move(parameters)),
      coefficients_(std::move(coefficients)),
      ntt_(parameters_->ring().prime_count() * parameters_->degree(), MemoryUse::key) {
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  for (std::size_t i = 0; i < ring.prime_count(); ++i) {
    std::uint64_t* out = ntt_.data() + i * n;
    simd::kernels().lift_small(out, coefficients_.data(), n, ring.modulus(i));
    simd::kernels().ntt_forward(out, ring.ntt(i));
  }
}

SecretKey SecretKey::generate(ParametersPtr parameters) {
  const std::size_t n = parameters->degree();
  SecureBuffer<std::int8_t> coefficients(n, MemoryUse::key);
  SecureBuffer<std::uint8_t> scratch(4 * n);
  const SecretSeed seed;
  Prng prng(seed.get(), {kKeyIndex, kSecretPart});
  sample_ternary(prng, coefficients.data(), n, scratch.data());
  return SecretKey(std::move(parameters), std::move(coefficients));
}

SecretKey SecretKey::load(ParametersPtr parameters, const std::uint8_t* data, std::size_t size) {
  const std::size_t n = parameters->degree();
  if (size != n / 4) {
    throw Error(ErrorCode::wire_format, "secret key body has " + std::to_string(size) +
                                            " bytes; expected " + std::to_string(n / 4));
  }
  SecureBuffer<std::int8_t> coefficients(n, MemoryUse::key);
  unsigned impossible = 0;
  for (std::size_t c = 0; c < n; ++c) {
    const unsigned code = (data[c / 4] >> (2 * (c % 4))) & 3U;
    impossible |= code & (code >> 1);  // 3
    coefficients[c] = static_cast<std::int8_t>(static_cast<int>(code) - 1);
  }
  QUANCRYPT_DECLASSIFY(impossible_code, &impossible, sizeof(impossible));
  if (impossible != 0) {
    throw Error(ErrorCode::wire_format, "secret key body holds a coefficient that is not ternary");
  }
  return SecretKey(std::move(parameters), std::move(coefficients));
}

SecureBuffer<std::uint8_t> SecretKey::save() const {
  SecureBuffer<std::uint8_t> out(coefficients_.size() / 4, MemoryUse::key);
  for (std::size_t c = 0; c < coefficients_.size(); ++c) {
    out[c / 4] = static_cast<std::uint8_t>(out[c / 4] | (coefficients_[c] + 1) << (2 * (c % 4)));
  }
  return out;
}

PublicKey::PublicKey(ParametersPtr parameters, const Seed& seed)
    : parameters_(std::move(parameters)), seed_(seed) {
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  for (auto& polynomial : polynomials_) polynomial.resize(ring.prime_count() * n);
  for (std::size_t i = 0; i < ring.prime_count(); ++i) {
    Prng prng(seed_, {kKeyIndex, static_cast<std::uint32_t>(i)});
    sample_uniform(prng, polynomials_[1].data() + i * n, n, ring.modulus(i));
  }
}

PublicKey PublicKey::generate(const SecretKey& secret) {
  PublicKey key(secret.parameters(), fresh_seed());
  const RnsRing& ring = key.parameters_->ring();
  const std::size_t n = ring.degree();
  SecureBuffer<std::int8_t> error(n);
  SecureBuffer<std::uint8_t> scratch(6 * n);
  SecureBuffer<std::uint64_t> negated(n);
  const SecretSeed seed;
  Prng prng(seed.get(), {kKeyIndex, kSecretPart});
  sample_centred_binomial(prng, error.data(), n, scratch.data());
  for (std::size_t i = 0; i < ring.prime_count(); ++i) {
    std::fill_n(negated.data(), n, std::uint64_t{0});
    simd::kernels().subtract_small(negated.data(), error.data(), n, ring.modulus(i));  // -e
    simd::kernels().ntt_forward(negated.data(), ring.ntt(i));
    simd::kernels().multiply_subtract(key.polynomials_[0].data() + i * n, key.ntt(1, i),
                                      secret.ntt(i), negated.data(), n, ring.modulus(i));
  }
  QUANCRYPT_DECLASSIFY(public_key, key.polynomials_[0].data(),
                       key.polynomials_[0].size() * sizeof(std::uint64_t));
  key.scale();
  return key;
}

PublicKey PublicKey::load(ParametersPtr parameters, const Seed& seed, const std::uint8_t* data,
                          std::size_t size) {
  const RnsRing& ring = parameters->ring();
  const std::size_t expected = polynomial_bytes(ring, ring.prime_count());
  if (size != expected) {
    throw Error(ErrorCode::wire_format, "public key body has " + std::to_string(size) +
                                            " bytes; expected " + std::to_string(expected));
  }
  PublicKey key(parameters, seed);
  unpack_polynomial(ring, ring.prime_count(), data, key.polynomials_[0].data());
  key.scale();
  return key;
}

void PublicKey::scale() {
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters_->data_primes();
  if (primes == ring.prime_count()) return;
  const std::uint64_t special = ring.modulus(primes).p;
  for (std::size_t j = 0; j < 2; ++j) {
    scaled_[j].assign(primes * n, 0);
    for (std::size_t i = 0; i < primes; ++i) {
      const Modulus& modulus = ring.modulus(i);
      const std::uint64_t inverse = inverse_mod(special % modulus.p, modulus);
      simd::kernels().scale_add(scaled_[j].data() + i * n, ntt(j, i), inverse,
                                simd::shoup(inverse, modulus), n, modulus);
    }
  }
}

std::vector<std::uint8_t> PublicKey::save() const {
  const RnsRing& ring = parameters_->ring();
  std::vector<std::uint8_t> out(polynomial_bytes(ring, ring.prime_count()));
  pack_polynomial(ring, ring.prime_count(), polynomials_[0].data(), out.data());
  return out;
}

}  // namespace quancrypt
