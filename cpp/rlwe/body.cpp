#include "rlwe/body.h"

#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "ring/samplers.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

namespace quancrypt {

std::size_t body_bytes(const Parameters& parameters, std::size_t ciphertexts, bool seeded) {
  return ciphertexts * parameters.polynomial_bytes() * (seeded ? 1 : 2);
}

void check_body_size(const Parameters& parameters, const BodyView& body, std::size_t ciphertexts) {
  const std::size_t expected = body_bytes(parameters, ciphertexts, body.seed.has_value());
  if (body.size != expected) {
    throw Error(ErrorCode::wire_format, "body has " + std::to_string(body.size) + " bytes; " +
                                            std::to_string(ciphertexts) + " ciphertexts take " +
                                            std::to_string(expected));
  }
}

const std::uint8_t* polynomial_data(const Parameters& parameters, const BodyView& body,
                                    std::size_t ciphertext, std::size_t part) {
  const std::size_t index = body.seed ? ciphertext : 2 * ciphertext + part;
  return body.data + index * parameters.polynomial_bytes();
}

void read_polynomial(const Parameters& parameters, const BodyView& body, std::size_t ciphertext,
                     std::size_t part, std::uint64_t* residues) {
  const std::size_t n = parameters.degree();
  if (part == 1 && body.seed) {
    for (std::size_t i = 0; i < parameters.data_primes(); ++i) {
      expand_c1(parameters, *body.seed, ciphertext, i, residues + i * n);
    }
    return;
  }
  unpack_polynomial(parameters.ring(), parameters.data_primes(),
                    polynomial_data(parameters, body, ciphertext, part), residues);
}

std::uint32_t write_polynomial(const Parameters& parameters, const std::uint64_t* residues,
                               std::size_t index, std::uint8_t* body) {
  std::uint8_t* out = body + index * parameters.polynomial_bytes();
  pack_polynomial(parameters.ring(), parameters.data_primes(), residues, out);
  QUANCRYPT_DECLASSIFY(ciphertext, out, parameters.polynomial_bytes());
  return simd::kernels().crc32c(0, out, parameters.polynomial_bytes());
}

void check_residues(const Parameters& parameters, const BodyView& body, std::size_t ciphertexts) {
  check_body_size(parameters, body, ciphertexts);
  const std::size_t parts = body.seed ? 1 : 2;
  std::vector<SecureBuffer<std::uint64_t>> scratch(num_threads());
  parallel_for(ciphertexts, scratch.size(), [&](std::size_t index, std::size_t worker) {
    if (scratch[worker].size() == 0) {
      scratch[worker] = SecureBuffer<std::uint64_t>(parameters.data_primes() * parameters.degree());
    }
    for (std::size_t part = 0; part < parts; ++part) {
      read_polynomial(parameters, body, index, part, scratch[worker].data());
    }
  });
}

void expand_c1(const Parameters& parameters, const Seed& seed, std::size_t ciphertext,
               std::size_t i, std::uint64_t* out) {
  Prng prng(seed, {ciphertext, static_cast<std::uint32_t>(i)});
  sample_uniform(prng, out, parameters.degree(), parameters.ring().modulus(i));
}

}  // namespace quancrypt
