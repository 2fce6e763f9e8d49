// Threshold keys: from the shares to an opened sum.
#include <optional>

#include "multiparty/combine.h"
#include "multiparty/party.h"
#include "multiparty/smudging.h"
#include "packing/quantize_pack.h"
#include "packing/rescale.h"
#include "packing/unpack_dequantize.h"
#include "ring/samplers.h"
#include "rlwe/decryptor.h"
#include "rlwe/encryptor.h"
#include "secrets.h"

using namespace quancrypt;
using namespace quancrypt::testing;

namespace {

/// Three parties; smudging of 34 bits, for speed.
ParametersPtr threshold_shape() {
  ParameterLiteral literal = packed(4096, {26, 40, 20}, 1, 2);
  literal.noise_bound = 1 + 3 * 4096;
  literal.parties = 3;
  literal.smudging_bits = 34;
  literal.smudging_primes = 1;
  return std::make_shared<const Parameters>(literal);
}

PublicKey joint_key(const ParametersPtr& parameters, const std::vector<Party>& parties) {
  std::vector<std::vector<std::uint8_t>> shares;
  std::vector<ByteView> views;
  for (const Party& party : parties) shares.push_back(party.public_share(Seed{1}));
  for (const auto& share : shares) {
    CHECK(!is_secret(share));
    views.push_back({share.data(), share.size()});
  }
  return combine_public_shares(parameters, Seed{1}, views);
}

/// One ciphertext of `fields` under the joint key.
std::vector<std::uint8_t> encrypt_jointly(const PublicKey& key,
                                          const std::vector<std::uint16_t>& fields) {
  const Parameters& parameters = *key.parameters();
  QuantizePackSource packed_fields(parameters.layout(), parameters.degree(),
                                   {{ElementType::field16, fields.data(), fields.size(), 1.0}},
                                   parameters.q_max(), std::nullopt, 1);
  RescaleSource source(parameters.ring(), parameters.data_primes(),
                       parameters.literal().smudging_primes, packed_fields);
  const SecretSeed noise;
  std::vector<std::uint8_t> body(body_bytes(parameters, 1, false));
  encrypt_public(key, source, 1, noise.get(), body.data());
  return body;
}

/// What participant `point` of parties 1 and 3 answers; its state is stored and read on the way.
std::vector<std::uint8_t> answer(const Party& party, std::size_t point,
                                 const std::vector<std::uint8_t>& body) {
  const ParametersPtr& parameters = party.parameters();
  const SecureBuffer<std::uint8_t> state = party.save();
  CHECK(is_secret(state.data(), state.size()));
  const Party again = Party::load(parameters, point, 2, state.data(), state.size());
  SecureBuffer<PairMask> masks(1);
  masks[0] = {Seed{2}, point == 3};
  QUANCRYPT_SECRET(masks[0].seed.data(), sizeof(Seed));
  std::vector<std::uint8_t> part(parameters->polynomial_bytes());
  again.partial_decryption({body.data(), body.size(), std::nullopt}, 1, {1, 3}, masks, Seed{3},
                           part.data());
  CHECK(!is_secret(part));
  return part;
}

}  // namespace

TEST(a_threshold_key_from_the_shares_to_a_sum) {
  const ParametersPtr parameters = threshold_shape();
  std::vector<std::uint16_t> fields(parameters->values_per_ciphertext());
  for (std::uint16_t& field : fields) field = static_cast<std::uint16_t>(rng() % 3);
  const std::vector<std::uint16_t> expected = fields;
  mark_secret(fields);
  const auto live = [&] {
    std::vector<Party> parties;
    for (std::size_t point = 1; point <= 3; ++point) parties.emplace_back(parameters, point, 2);
    std::vector<std::uint8_t> deal(parameters->polynomial_bytes());
    for (std::size_t from = 1; from <= 3; ++from) {
      for (std::size_t to = 1; to <= 3; ++to) {
        if (from == to) continue;
        parties[from - 1].deal(to, deal.data());
        CHECK(is_secret(deal));
        parties[to - 1].receive(deal.data(), deal.size());
      }
    }
    const std::vector<std::uint8_t> body = encrypt_jointly(joint_key(parameters, parties), fields);
    const std::vector<std::uint8_t> first = answer(parties[0], 1, body);
    const std::vector<std::uint8_t> third = answer(parties[2], 3, body);
    std::vector<std::int64_t> sum(fields.size());
    const auto q_max = static_cast<std::uint64_t>(parameters->q_max());
    const simd::SumLimits limits = {2 * q_max, parameters->noise_of_sum(1)};
    UnpackDequantizeSink fields_of(parameters->layout(), parameters->degree(),
                                   {{sum.data(), sum.size(), 1.0}}, true, parameters->q_max(),
                                   limits, 1);
    RescaleSink sink(parameters->ring(), parameters->data_primes(),
                     parameters->literal().smudging_primes, fields_of);
    combine_parts(*parameters, {body.data(), body.size(), std::nullopt}, 1,
                  {{first.data(), first.size()}, {third.data(), third.size()}}, sink);
    CHECK(fields_of.valid());
    CHECK(is_secret(sum));
    mark_public(sum);
    for (std::size_t v = 0; v < sum.size(); ++v) {
      CHECK(sum[v] == std::int64_t{expected[v]} - parameters->q_max());
    }
  };
  CHECK(!leaks(live));
}

TEST(parties_share_and_decrypt) {
  const ParametersPtr parameters = threshold_shape();
  const auto meet = [&] {
    Party one(parameters, 1, 2);
    const Party two(parameters, 2, 2);
    CHECK(!is_secret(one.public_share(Seed{1})));
    std::vector<std::uint8_t> deal(parameters->polynomial_bytes());
    two.deal(1, deal.data());
    CHECK(is_secret(deal));
    one.receive(deal.data(), deal.size());
    const SecureBuffer<std::uint8_t> state = one.save();
    CHECK(is_secret(state.data(), state.size()));
    const Party again = Party::load(parameters, 1, 2, state.data(), state.size());
    const std::vector<std::uint8_t> body(body_bytes(*parameters, 1, false), 1);
    std::vector<std::uint8_t> part(parameters->polynomial_bytes());
    SecureBuffer<PairMask> masks(1);
    masks[0] = {Seed{2}, true};
    QUANCRYPT_SECRET(masks[0].seed.data(), sizeof(Seed));
    Seed request{3};
    QUANCRYPT_SECRET(request.data(), sizeof(Seed));
    again.partial_decryption({body.data(), body.size(), std::nullopt}, 1, {1, 2}, masks, request,
                             part.data());
    CHECK(!is_secret(part));
  };
  CHECK(!leaks(meet));
}

TEST(smudging_and_division) {
  const RnsRing ring(1024, find_primes(1024, 45, 3, {}));
  for (const unsigned bits : {20U, 90U}) {
    std::vector<std::uint64_t> x(1024);
    const auto sample = [&] {
      Smudging smudging(ring, bits);
      const SecretSeed seed;
      Prng prng(seed.get(), {0, 0});
      smudging.sample(prng);
      smudging.residues(1, x.data());
      CHECK(is_secret(x));
    };
    CHECK(!leaks(sample));
  }
  class Sink final : public PlaintextSink {
   public:
    [[nodiscard]] std::size_t workers() const override { return 1; }
    void take(std::size_t, std::size_t, std::uint64_t* residues) override {
      secret = is_secret(residues, 1024 * sizeof(std::uint64_t));
    }
    bool secret = false;
  } inner;
  std::vector<std::uint64_t> residues;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::vector<std::uint64_t> row = secret_residues(1024, ring.modulus(i).p);
    residues.insert(residues.end(), row.begin(), row.end());
  }
  RescaleSink sink(ring, 3, 2, inner);
  const auto divide = [&] {
    sink.take(0, 0, residues.data());
    CHECK(inner.secret);
  };
  CHECK(!leaks(divide));
}
