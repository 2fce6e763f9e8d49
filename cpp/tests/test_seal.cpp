// Our ciphertexts are SEAL's: SEAL decrypts them, we decrypt SEAL's, and with the same draws both
// are equal bit for bit.
#include <cmath>
#include <random>

#include "base/error.h"
#include "check.h"
#include "literals.h"
#include "packing/quantize_pack.h"
#include "packing/unpack_dequantize.h"
#include "ring/samplers.h"
#include "rlwe/aggregator.h"
#include "rlwe/decryptor.h"
#include "rlwe/encryptor.h"
#include "rlwe/security.h"
#include "seal/util/ntt.h"
#include "seal/util/polyarithsmallmod.h"
#include "seal_bridge/exchange.h"
#include "seal_oracle.h"
#include "simd/dispatch.h"

using namespace quancrypt;
using quancrypt::testing::packed;
using quancrypt::testing::Setup;

namespace {

/// Every ring degree; one data prime to seven, up to 50 bits each.
std::vector<ParameterLiteral> shapes() {
  return {packed(1024, {27}, 1, 21),
          packed(2048, {46}, 2, 22),
          packed(4096, {44, 43, 20}, 5, 17),
          packed(8192, {48, 48, 47, 47, 20}, 14, 18),
          packed(8192, {50, 50, 50, 20}, 10, 18),
          packed(16384, {50, 50, 50, 49, 49, 49, 49, 20}, 26, 19),
          packed(32768, {45, 41, 20}, 5, 20)};
}

std::vector<float> random_values(std::size_t count) {
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> uniform(-1.2F, 1.2F);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(rng);
  return values;
}

QuantizePackSource source_of(const Setup& s, const std::vector<float>& values) {
  return {s.parameters->layout(),
          s.parameters->degree(),
          {{ElementType::float32, values.data(), values.size(), 1.0}},
          s.parameters->q_max(),
          std::nullopt,
          2};
}

std::vector<std::int64_t> expected_integers(const Setup& s, const std::vector<float>& values) {
  const auto q_max = static_cast<float>(s.parameters->q_max());
  std::vector<std::int64_t> q;
  for (const float value : values) {
    const float clipped = std::min(1.0F, std::max(-1.0F, value));
    q.push_back(static_cast<std::int64_t>(std::nearbyint(clipped * q_max)));
  }
  return q;
}

std::vector<std::int64_t> decrypt_integers(const Setup& s, const BodyView& body, std::size_t values,
                                           std::uint64_t weight) {
  std::vector<std::int64_t> out(values);
  UnpackDequantizeSink sink(s.parameters->layout(), s.parameters->degree(),
                            {{out.data(), values, 0.0}}, true,
                            static_cast<std::int64_t>(weight) * s.parameters->q_max(),
                            {weight * 2 * static_cast<std::uint64_t>(s.parameters->q_max()),
                             weight * s.parameters->literal().noise_bound},
                            2);
  decrypt(s.secret, body, s.parameters->ciphertext_count(values), sink);
  CHECK(sink.valid());
  return out;
}

seal::Ciphertext to_seal(const Setup& s, const BodyView& body, std::size_t index,
                         std::size_t count) {
  const auto streams = seal_bridge::export_ciphertexts(s.context, body, count);
  seal::Ciphertext out;
  out.load(s.context.seal(), reinterpret_cast<const seal::seal_byte*>(streams[index].data()),
           streams[index].size());
  return out;
}

/// Plaintext of one ciphertext by SEAL, as coefficients modulo each data prime.
std::vector<std::uint64_t> seal_decrypt(const Setup& s, const seal::Ciphertext& ciphertext) {
  seal::Decryptor decryptor(s.context.seal(), s.seal_secret);
  seal::Plaintext plain;
  decryptor.decrypt(ciphertext, plain);
  std::vector<std::uint64_t> out(plain.data(), plain.data() + plain.coeff_count());
  for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
    simd::portable_kernels()->ntt_inverse(out.data() + i * s.parameters->degree(),
                                          s.parameters->ring().ntt(i));
  }
  return out;
}

/// Largest |noise| of a decrypted plaintext against the message; checks that all primes agree.
std::int64_t largest_noise(const Setup& s, const std::vector<std::uint64_t>& plain,
                           const std::vector<std::uint64_t>& message) {
  std::int64_t largest = 0;
  const std::size_t n = s.parameters->degree();
  for (std::size_t c = 0; c < n; ++c) {
    std::int64_t first = 0;
    for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
      const std::uint64_t p = s.parameters->ring().modulus(i).p;
      const std::uint64_t difference = (plain[i * n + c] + p - message[i * n + c]) % p;
      const auto noise = static_cast<std::int64_t>(difference) -
                         (difference > p / 2 ? static_cast<std::int64_t>(p) : 0);
      if (i == 0) first = noise;
      CHECK(noise == first);
    }
    largest = std::max(largest, std::abs(first));
  }
  return largest;
}

}  // namespace

TEST(seal_decrypts_ours_and_the_noise_is_bounded) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::vector<float> values = random_values(s.parameters->values_per_ciphertext());
    std::vector<std::uint64_t> message(s.parameters->data_primes() * literal.degree);
    source_of(s, values).fill(0, 0, message.data());

    std::vector<std::uint8_t> body(body_bytes(*s.parameters, 1, true));
    const Seed seed = fresh_seed();
    auto source = source_of(s, values);
    encrypt_symmetric(s.secret, source, 1, seed, fresh_seed(), body.data());
    const BodyView seeded{body.data(), body.size(), seed};
    CHECK(largest_noise(s, seal_decrypt(s, to_seal(s, seeded, 0, 1)), message) <= kMaxError);
    CHECK(decrypt_integers(s, seeded, values.size(), 1) == expected_integers(s, values));

    std::vector<std::uint8_t> public_body(body_bytes(*s.parameters, 1, false));
    encrypt_public(s.public_key, source, 1, fresh_seed(), public_body.data());
    const BodyView unseeded{public_body.data(), public_body.size(), std::nullopt};
    CHECK(largest_noise(s, seal_decrypt(s, to_seal(s, unseeded, 0, 1)), message) <=
          static_cast<std::int64_t>(literal.noise_bound));
    CHECK(decrypt_integers(s, unseeded, values.size(), 1) == expected_integers(s, values));
  }
}

TEST(public_key_encryption_equals_seal_bit_for_bit) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::vector<float> values = random_values(100);
    auto source = source_of(s, values);
    const Seed noise = fresh_seed();
    std::vector<std::uint8_t> body(body_bytes(*s.parameters, 1, false));
    encrypt_public(s.public_key, source, 1, noise, body.data());

    const seal::SEALContext context = testing::context_drawing(s, noise);
    seal::Plaintext plain;
    const std::size_t n = literal.degree;
    plain.resize(s.parameters->data_primes() * n);
    source.fill(0, 0, plain.data());
    for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
      simd::kernels().ntt_forward(plain.data() + i * n, s.parameters->ring().ntt(i));
    }
    plain.parms_id() = context.first_parms_id();
    plain.scale() = 1.0;
    const BodyView view{body.data(), body.size(), std::nullopt};
    CHECK(testing::equals_seal(s, view, testing::seal_encrypt_public(s, context, plain)));
  }
}

TEST(symmetric_encryption_equals_seal_arithmetic) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::size_t n = literal.degree;
    const std::vector<float> values = random_values(1000);
    auto source = source_of(s, values);
    const Seed seed = fresh_seed();
    const Seed noise = fresh_seed();
    std::vector<std::uint8_t> body(body_bytes(*s.parameters, 1, true));
    encrypt_symmetric(s.secret, source, 1, seed, noise, body.data());
    const BodyView view{body.data(), body.size(), seed};
    std::vector<std::uint64_t> message(s.parameters->data_primes() * n);
    source.fill(0, 0, message.data());
    std::vector<std::int8_t> error(n);
    std::vector<std::uint8_t> scratch(6 * n);
    Prng prng(noise, {0, kSecretPart});
    sample_centred_binomial(prng, error.data(), n, scratch.data());
    std::vector<std::uint64_t> c0(s.parameters->data_primes() * n);
    std::vector<std::uint64_t> c1(s.parameters->data_primes() * n);
    read_polynomial(*s.parameters, view, 0, 0, c0.data());
    read_polynomial(*s.parameters, view, 0, 1, c1.data());
    // c0 = m - (a s + e), each step by SEAL's own functions.
    const auto& tables = s.context.seal().first_context_data()->small_ntt_tables();
    for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
      const seal::Modulus modulus(s.parameters->ring().modulus(i).p);
      std::vector<std::uint64_t> e(n);
      std::vector<std::uint64_t> product(n);
      for (std::size_t c = 0; c < n; ++c) {
        e[c] = error[c] >= 0 ? static_cast<std::uint64_t>(error[c])
                             : modulus.value() - static_cast<std::uint64_t>(-error[c]);
      }
      std::uint64_t* m = message.data() + i * n;
      seal::util::ntt_negacyclic_harvey(seal::util::CoeffIter(e.data()), tables[i]);
      seal::util::ntt_negacyclic_harvey(seal::util::CoeffIter(m), tables[i]);
      seal::util::dyadic_product_coeffmod(c1.data() + i * n, s.seal_secret.data().data() + i * n, n,
                                          modulus, product.data());
      seal::util::add_poly_coeffmod(product.data(), e.data(), n, modulus, product.data());
      seal::util::sub_poly_coeffmod(m, product.data(), n, modulus, product.data());
      CHECK(std::equal(product.begin(), product.end(),
                       c0.begin() + static_cast<std::ptrdiff_t>(i * n)));
    }
  }
}

TEST(we_decrypt_what_seal_encrypts_and_adds) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::size_t n = literal.degree;
    const std::vector<float> values = random_values(s.parameters->values_per_ciphertext());
    seal::Plaintext plain;
    plain.resize(s.parameters->data_primes() * n);
    source_of(s, values).fill(0, 0, plain.data());
    for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
      simd::kernels().ntt_forward(plain.data() + i * n, s.parameters->ring().ntt(i));
    }
    plain.parms_id() = s.context.seal().first_parms_id();
    plain.scale() = 1.0;
    seal::Encryptor encryptor(s.context.seal(), s.seal_secret);
    seal::Evaluator evaluator(s.context.seal());
    seal::Ciphertext sum;
    encryptor.encrypt_symmetric(plain, sum);
    for (int i = 0; i < 15; ++i) {
      seal::Ciphertext next;
      encryptor.encrypt_symmetric(plain, next);
      evaluator.add_inplace(sum, next);
    }
    std::string stream(static_cast<std::size_t>(sum.save_size(seal::compr_mode_type::none)), '\0');
    stream.resize(
        static_cast<std::size_t>(sum.save(reinterpret_cast<seal::seal_byte*>(stream.data()),
                                          stream.size(), seal::compr_mode_type::none)));
    std::vector<std::uint8_t> body(body_bytes(*s.parameters, 1, false));
    seal_bridge::import_ciphertexts(s.context, {stream}, body.data());
    auto expected = expected_integers(s, values);
    for (auto& value : expected) value *= 16;
    CHECK(decrypt_integers(s, {body.data(), body.size(), std::nullopt}, values.size(), 16) ==
          expected);
    CHECK_ERROR(ErrorCode::wire_format,
                seal_bridge::import_ciphertexts(s.context, {stream.substr(0, 100)}, body.data()));
  }
}

TEST(aggregator_equals_seal_evaluator) {
  const Setup s(shapes()[1]);
  const std::vector<float> values = random_values(s.parameters->values_per_ciphertext() + 5);
  Aggregator aggregator(s.parameters, 2);
  seal::Evaluator evaluator(s.context.seal());
  seal::Ciphertext expected;
  for (std::uint64_t weight = 1; weight <= 3; ++weight) {
    auto source = source_of(s, values);
    const Seed seed = fresh_seed();
    std::vector<std::uint8_t> body(body_bytes(*s.parameters, 2, true));
    encrypt_symmetric(s.secret, source, 2, seed, fresh_seed(), body.data());
    const BodyView view{body.data(), body.size(), seed};
    aggregator.add(view, 1, weight);
    const seal::Ciphertext one = to_seal(s, view, 1, 2);
    for (std::uint64_t i = 0; i < weight; ++i) {
      if (expected.size() == 0) {
        expected = one;
      } else {
        evaluator.add_inplace(expected, one);
      }
    }
  }
  CHECK(aggregator.weight() == 6);
  std::vector<std::uint8_t> sum(body_bytes(*s.parameters, 2, false));
  aggregator.write(sum.data());
  const seal::Ciphertext ours = to_seal(s, {sum.data(), sum.size(), std::nullopt}, 1, 2);
  CHECK(std::equal(ours.data(), ours.data() + ours.dyn_array().size(), expected.data()));
  CHECK_ERROR(ErrorCode::capacity, aggregator.add({sum.data(), sum.size(), std::nullopt}, 6, 2));
  CHECK_ERROR(ErrorCode::wire_format,
              aggregator.add({sum.data(), sum.size() - 1, std::nullopt}, 1, 1));
  CHECK(aggregator.weight() == 6);
}

int main() { return testing::run_all(); }
