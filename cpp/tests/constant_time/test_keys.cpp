// Keys and ciphertexts of one holder.
#include <optional>

#include "base/error.h"
#include "packing/quantize_pack.h"
#include "packing/slots.h"
#include "packing/unpack_dequantize.h"
#include "rlwe/decryptor.h"
#include "rlwe/encryptor.h"
#include "secrets.h"

using namespace quancrypt;
using namespace quancrypt::testing;

TEST(keys_are_made_saved_and_loaded) {
  std::vector<ParametersPtr> shapes = packed_shapes();
  for (const ParametersPtr& parameters : slot_shapes()) shapes.push_back(parameters);
  for (const ParametersPtr& parameters : shapes) {
    const auto make = [&] {
      const SecretKey key = SecretKey::generate(parameters);
      std::vector<std::uint8_t> code = secret_code(key);
      CHECK(is_secret(code));
      const SecretKey again = SecretKey::load(parameters, code.data(), code.size());
      CHECK(is_secret(again.ntt(0), parameters->degree() * sizeof(std::uint64_t)));
      std::vector<std::uint8_t> second = secret_code(again);
      mark_public(code);
      mark_public(second);
      CHECK(code == second);
      const PublicKey public_key = PublicKey::generate(key);
      CHECK(!is_secret(public_key.save()));
    };
    CHECK(!leaks(make));
  }
}

namespace {

/// A ciphertext of `segment`'s values, decrypted to floats and to integers.
void encrypt_and_decrypt(const SecretKey& key, const PublicKey* public_key,
                         const InputSegment& segment, const std::optional<Seed>& dither) {
  const Parameters& parameters = *key.parameters();
  const std::size_t values = segment.count;
  QuantizePackSource source(parameters.layout(), parameters.degree(), {segment}, parameters.q_max(),
                            dither, 1);
  const SecretSeed noise;
  std::optional<Seed> seed;
  std::vector<std::uint8_t> body(body_bytes(parameters, 1, public_key == nullptr));
  if (public_key == nullptr) {
    seed = fresh_seed();
    encrypt_symmetric(key, source, 1, *seed, noise.get(), body.data());
  } else {
    encrypt_public(*public_key, source, 1, noise.get(), body.data());
  }
  CHECK(source.first_bad() == values);
  CHECK(!is_secret(body));
  const auto q_max = static_cast<std::uint64_t>(parameters.q_max());
  const simd::SumLimits limits = {2 * q_max, parameters.literal().noise_bound};
  std::vector<float> reals(values);
  std::vector<std::int64_t> whole(values);
  for (const bool integers : {false, true}) {
    if (!integers && !kKnowsConversions) continue;
    void* out = reals.data();
    if (integers) out = whole.data();
    UnpackDequantizeSink sink(parameters.layout(), parameters.degree(), {{out, values, 0.01}},
                              integers, parameters.q_max(), limits, 1);
    decrypt(key, {body.data(), body.size(), seed}, 1, sink);
    CHECK(sink.valid());
    CHECK(integers ? is_secret(whole) : is_secret(reals));
  }
}

}  // namespace

TEST(packed_encryption_and_decryption) {
  for (const ParametersPtr& parameters : packed_shapes()) {
    const SecretKey key = SecretKey::generate(parameters);
    const PublicKey public_key = PublicKey::generate(key);
    const std::size_t values = parameters->values_per_ciphertext() - 3;
    const std::vector<float> reals = secret_reals<float>(values);
    std::vector<std::uint16_t> fields(values);
    for (std::uint16_t& field : fields) field = static_cast<std::uint16_t>(rng() % 3);
    mark_secret(fields);
    const InputSegment of_fields = {ElementType::field16, fields.data(), values, 1.0};
    const InputSegment of_reals = {ElementType::float32, reals.data(), values, 1.0};
    const SecretSeed dither;
    for (const PublicKey* with : {static_cast<const PublicKey*>(nullptr), &public_key}) {
      const auto integers = [&] { encrypt_and_decrypt(key, with, of_fields, std::nullopt); };
      const auto nearest = [&] { encrypt_and_decrypt(key, with, of_reals, std::nullopt); };
      const auto stochastic = [&] { encrypt_and_decrypt(key, with, of_reals, dither.get()); };
      CHECK(!leaks(integers));
      CHECK(!kKnowsConversions || !leaks(nearest));
      CHECK(!kKnowsConversions || !leaks(stochastic));
    }
  }
}

TEST(a_key_that_is_damaged_is_refused) {
  const ParametersPtr parameters = packed_shapes()[0];
  std::vector<std::uint8_t> code = secret_code(SecretKey::generate(parameters));
  code[7] = 0xFF;
  mark_secret(code);
  const auto load = [&] {
    CHECK_ERROR(ErrorCode::wire_format, SecretKey::load(parameters, code.data(), code.size()));
  };
  CHECK(!leaks(load));
}

TEST(slot_encryption_and_decryption) {
  for (const ParametersPtr& parameters : slot_shapes()) {
    const SecretKey key = SecretKey::generate(parameters);
    const PublicKey public_key = PublicKey::generate(key);
    const std::size_t values = parameters->values_per_ciphertext() - 3;
    const std::vector<double> reals = secret_reals<double>(values);
    const auto encrypt_and_decrypt_slots = [&] {
      for (const bool seeded : {false, true}) {
        SlotSource source(parameters->slot_layout(), reals.data(), values, 1);
        const SecretSeed noise;
        std::optional<Seed> seed;
        std::vector<std::uint8_t> body(body_bytes(*parameters, 1, seeded));
        if (seeded) {
          seed = fresh_seed();
          encrypt_symmetric(key, source, 1, *seed, noise.get(), body.data());
        } else {
          encrypt_public(public_key, source, 1, noise.get(), body.data());
        }
        CHECK(!is_secret(body));
        std::vector<float> out(values);
        SlotSink sink(parameters->slot_layout(), out.data(), values, 1.0, 1);
        decrypt(key, {body.data(), body.size(), seed}, 1, sink);
        CHECK(is_secret(out));
      }
    };
    CHECK(!leaks(encrypt_and_decrypt_slots));
  }
}
