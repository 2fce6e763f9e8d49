// What the tests that compare with SEAL share: a key pair in both libraries, and SEAL drawing from our
// streams.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "ring/prng.h"
#include "rlwe/keys.h"
#include "seal_bridge/exchange.h"

namespace quancrypt::testing {

/// A SEAL generator that reads one of our streams, so that SEAL draws what we draw.
class StreamGenerator final : public seal::UniformRandomGenerator {
 public:
  StreamGenerator(const Seed& seed, StreamId id)
      : seal::UniformRandomGenerator(seal::prng_seed_type{}), prng_(seed, id) {}

 protected:
  seal::prng_type type() const noexcept override { return seal::prng_type::unknown; }
  void refill_buffer() override {
    prng_.read(reinterpret_cast<std::uint8_t*>(buffer_begin_),
               static_cast<std::size_t>(buffer_end_ - buffer_begin_));
  }

 private:
  Prng prng_;
};

class StreamFactory final : public seal::UniformRandomGeneratorFactory {
 public:
  StreamFactory(const Seed& seed, StreamId id) : seed_(seed), id_(id) {}

 protected:
  std::shared_ptr<seal::UniformRandomGenerator> create_impl(seal::prng_seed_type) override {
    return std::make_shared<StreamGenerator>(seed_, id_);
  }

 private:
  Seed seed_;
  StreamId id_;
};

struct Setup {
  ParametersPtr parameters;
  seal_bridge::Context context;
  SecretKey secret;
  PublicKey public_key;
  seal::SecretKey seal_secret;

  explicit Setup(ParameterLiteral literal)
      : parameters(std::make_shared<const Parameters>(std::move(literal))),
        context(parameters),
        secret(SecretKey::generate(parameters)),
        public_key(PublicKey::generate(secret)) {
    const auto stream = seal_bridge::export_secret_key(context, secret);
    seal_secret.load(context.seal(), reinterpret_cast<const seal::seal_byte*>(stream.data()),
                     stream.size());
  }
};

/// A SEAL context that draws u, e0 and e1 as encrypt_public does for ciphertext 0 under `noise`.
inline seal::SEALContext context_drawing(const Setup& s, const Seed& noise) {
  auto parms = seal_bridge::encryption_parameters(*s.parameters);
  parms.set_random_generator(std::make_shared<StreamFactory>(noise, StreamId{0, kSecretPart}));
  return seal::SEALContext(parms, false, seal::sec_level_type::tc128);
}

/// SEAL's public-key encryption of a plaintext in NTT form at the first data level.
inline seal::Ciphertext seal_encrypt_public(const Setup& s, const seal::SEALContext& context,
                                            const seal::Plaintext& plain) {
  seal::PublicKey key;
  const std::string stream = seal_bridge::export_public_key(s.context, s.public_key);
  key.load(context, reinterpret_cast<const seal::seal_byte*>(stream.data()), stream.size());
  seal::Ciphertext out;
  seal::Encryptor(context, key).encrypt(plain, out);
  return out;
}

/// Both polynomials of the only ciphertext in `body` equal SEAL's.
inline bool equals_seal(const Setup& s, const BodyView& body, const seal::Ciphertext& expected) {
  std::vector<std::uint64_t> ours(s.parameters->data_primes() * s.parameters->degree());
  for (std::size_t part = 0; part < 2; ++part) {
    read_polynomial(*s.parameters, body, 0, part, ours.data());
    if (!std::equal(ours.begin(), ours.end(), expected.data(part))) return false;
  }
  return true;
}

}  // namespace quancrypt::testing
