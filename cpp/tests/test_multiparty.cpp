// Threshold keys: Lagrange coefficients, smudging, shares, and decryption against the joint key as
// reconstructed here.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "multiparty/combine.h"
#include "multiparty/party.h"
#include "multiparty/shamir.h"
#include "multiparty/smudging.h"
#include "packing/rescale.h"
#include "ring/samplers.h"
#include "rlwe/encryptor.h"
#include "simd/arith.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

using namespace quancrypt;

namespace {

constexpr std::size_t kDegree = 4096;

/// Small, for speed: smudging of 34 bits, where 56-bit statistical security would take 80.
ParametersPtr parameters(std::uint32_t parties) {
  ParameterLiteral literal;
  literal.degree = kDegree;
  for (const std::uint32_t bits : {26U, 40U, 20U}) {
    literal.primes.push_back(find_primes(kDegree, bits, 1, literal.primes)[0]);
  }
  literal.max_weight = 4;
  literal.bits = 8;
  literal.fields = 2;
  literal.field_bits = 10;
  literal.guard_bits = 2;
  literal.noise_bound = 1 + parties * kDegree;
  literal.parties = parties;
  literal.smudging_bits = 34;
  literal.smudging_primes = 1;
  return std::make_shared<const Parameters>(literal);
}

/// Fields 0, 1, 2, ... modulo 255.
class CountingSource final : public PlaintextSource {
 public:
  explicit CountingSource(const Parameters& p) : p_(p), fields_(p.layout().values()) {
    for (std::size_t v = 0; v < fields_.size(); ++v)
      fields_[v] = static_cast<std::uint16_t>(v % 255);
  }
  [[nodiscard]] std::size_t workers() const override { return 1; }
  void fill(std::size_t, std::size_t, std::uint64_t* residues) override {
    simd::kernels().pack_fields(fields_.data(), p_.degree(), p_.layout().table(), residues);
  }
  [[nodiscard]] const std::vector<std::uint16_t>& fields() const { return fields_; }

 private:
  const Parameters& p_;
  std::vector<std::uint16_t> fields_;
};

class FieldSink final : public PlaintextSink {
 public:
  explicit FieldSink(const Parameters& p) : p_(p), fields(p.layout().values()) {}
  [[nodiscard]] std::size_t workers() const override { return 1; }
  void take(std::size_t, std::size_t, std::uint64_t* residues) override {
    const simd::SumLimits limits{254, p_.noise_of_sum(1)};
    valid = simd::kernels().unpack_fields(residues, p_.degree(), p_.layout().table(), limits,
                                          fields.data());
  }

 private:
  const Parameters& p_;

 public:
  std::vector<std::uint32_t> fields;
  bool valid = false;
};

std::vector<Party> meet(const ParametersPtr& p, std::size_t threshold) {
  const std::size_t parties = p->literal().parties;
  std::vector<Party> all;
  for (std::size_t i = 1; i <= parties; ++i) all.emplace_back(p, i, threshold);
  std::vector<std::uint8_t> deal(p->polynomial_bytes());
  for (std::size_t from = 0; from < parties; ++from) {
    for (std::size_t to = 0; to < parties; ++to) {
      if (from == to) continue;
      all[from].deal(to + 1, deal.data());
      all[to].receive(deal.data(), deal.size());
    }
  }
  return all;
}

PublicKey joint_key(const ParametersPtr& p, const std::vector<Party>& all, const Seed& common) {
  std::vector<std::vector<std::uint8_t>> shares;
  std::vector<ByteView> views;
  for (const Party& party : all) shares.push_back(party.public_share(common));
  for (const auto& share : shares) views.push_back({share.data(), share.size()});
  return combine_public_shares(p, common, views);
}

/// Masks of participant `at` among `points`: seed [smaller, larger] for each pair.
SecureBuffer<PairMask> masks(const std::vector<std::size_t>& points, std::size_t at) {
  SecureBuffer<PairMask> out(points.size() - 1);
  std::size_t k = 0;
  for (const std::size_t other : points) {
    if (other == at) continue;
    PairMask mask{Seed{}, at > other};
    mask.seed[0] = static_cast<std::uint8_t>(std::min(at, other));
    mask.seed[1] = static_cast<std::uint8_t>(std::max(at, other));
    out[k++] = mask;
  }
  return out;
}

}  // namespace

TEST(lagrange_reconstructs_polynomials) {
  const Modulus m = make_modulus(find_primes(kDegree, 46, 1, {})[0]);
  const std::vector<std::uint64_t> f = {123456789, 987654321, m.p - 5};  // degree 2
  for (const std::vector<std::size_t>& points :
       {std::vector<std::size_t>{1, 2, 3}, {2, 5, 128}, {9, 4, 7, 1}}) {
    std::uint64_t value = 0;
    for (const std::size_t x : points) {
      std::uint64_t y = 0;
      for (std::size_t k = f.size(); k-- > 0;) {
        y = simd::add_mod(simd::multiply_mod(y, x, m), f[k], m.p);
      }
      value = simd::add_mod(value, simd::multiply_mod(y, lagrange_at_zero(x, points, m), m), m.p);
    }
    CHECK(value == f[0]);
  }
  CHECK_ERROR(ErrorCode::parameter, lagrange_at_zero(1, {2, 3}, m));
  CHECK_ERROR(ErrorCode::parameter, lagrange_at_zero(1, {1, 2, 2}, m));
  CHECK_ERROR(ErrorCode::parameter, lagrange_at_zero(1, {1, 129}, m));
  CHECK_ERROR(ErrorCode::parameter, lagrange_at_zero(0, {0, 1}, m));
}

TEST(smudging_is_uniform_on_its_range_and_one_integer) {
  // One prime of 60 bits holds elements of 40 bits as they are; all primes show the same integer.
  const RnsRing ring(1024, find_primes(1024, 60, 2, {}));
  for (const unsigned bits : {1U, 5U, 40U, 57U}) {
    Smudging smudging(ring, bits);
    const Seed seed{7};
    Prng prng(seed, {bits, 0});
    std::vector<std::uint64_t> x(1024), y(1024);
    const std::int64_t half = std::int64_t{1} << bits;
    double mean = 0;
    double square = 0;
    for (int round = 0; round < 64; ++round) {
      smudging.sample(prng);
      smudging.residues(0, x.data());
      smudging.residues(1, y.data());
      for (std::size_t c = 0; c < x.size(); ++c) {
        const auto p = static_cast<std::int64_t>(ring.modulus(0).p);
        auto e = static_cast<std::int64_t>(x[c]);
        if (e > p / 2) e -= p;
        CHECK(e >= -half && e < half);
        const auto q = static_cast<std::int64_t>(ring.modulus(1).p);
        CHECK(static_cast<std::int64_t>(y[c]) == (e < 0 ? e + q : e));
        const double scaled = (static_cast<double>(e) + 0.5) / static_cast<double>(half);
        mean += scaled / 65536;
        square += scaled * scaled / 65536;
      }
    }
    // Centres of 2^(bits+1) equal cells of (-1, 1): variance (1 - 2^-2(bits+1)) / 3; both sums over
    // 65,536 draws have a standard deviation below 0.0023.
    CHECK(std::abs(mean) < 0.012);
    CHECK(std::abs(square - (1 - std::ldexp(1.0, -2 * static_cast<int>(bits + 1))) / 3) < 0.012);
  }
}

TEST(wide_smudging_has_its_high_bits) {
  // 90 bits over two primes of 50 bits: put together by Garner, the integers span the range.
  const RnsRing ring(1024, find_primes(1024, 50, 2, {}));
  Smudging smudging(ring, 90);
  const Seed seed{9};
  Prng prng(seed, {0, 0});
  smudging.sample(prng);
  std::vector<std::uint64_t> x(1024), y(1024);
  smudging.residues(0, x.data());
  smudging.residues(1, y.data());
  const Modulus& p = ring.modulus(0);
  const Modulus& q = ring.modulus(1);
  const std::uint64_t inverse = inverse_mod(p.p % q.p, q);
  const simd::u128 product = static_cast<simd::u128>(p.p) * q.p;
  const simd::u128 half = static_cast<simd::u128>(1) << 90;
  std::size_t upper = 0;  // beyond half of the range, either sign
  for (std::size_t c = 0; c < x.size(); ++c) {
    const std::uint64_t digit =
        simd::multiply_mod(simd::sub_mod(y[c], x[c] % q.p, q.p), inverse, q);
    const simd::u128 value = x[c] + static_cast<simd::u128>(p.p) * digit;
    const bool negative = value > product / 2;
    const simd::u128 size = negative ? product - value : value;
    CHECK(size <= half);
    upper += size > half / 2 ? 1U : 0U;
  }
  CHECK(upper > 412 && upper < 612);  // 512 +- 16
}

TEST(every_set_decrypts_and_too_few_are_refused) {
  const ParametersPtr p = parameters(4);
  const Seed common{1};
  const std::vector<Party> all = meet(p, 3);
  const PublicKey key = joint_key(p, all, common);
  CountingSource counting(*p);
  RescaleSource source(p->ring(), p->data_primes(), 1, counting);
  std::vector<std::uint8_t> body(body_bytes(*p, 1, false));
  encrypt_public(key, source, 1, Seed{2}, body.data());
  const BodyView view{body.data(), body.size(), std::nullopt};
  for (const std::vector<std::size_t>& points :
       {std::vector<std::size_t>{1, 2, 3}, {1, 2, 4}, {1, 3, 4}, {2, 3, 4}, {1, 2, 3, 4}}) {
    std::vector<std::vector<std::uint8_t>> parts;
    std::vector<ByteView> views;
    for (const std::size_t point : points) {
      parts.emplace_back(p->polynomial_bytes());
      all[point - 1].partial_decryption(view, 1, points, masks(points, point), Seed{5},
                                        parts.back().data());
    }
    for (const auto& part : parts) views.push_back({part.data(), part.size()});
    FieldSink fields(*p);
    RescaleSink sink(p->ring(), p->data_primes(), 1, fields);
    combine_parts(*p, view, 1, views, sink);
    CHECK(fields.valid);
    CHECK(std::equal(fields.fields.begin(), fields.fields.end(), counting.fields().begin()));
    views.pop_back();  // one part is missing
    FieldSink nothing(*p);
    RescaleSink other(p->ring(), p->data_primes(), 1, nothing);
    combine_parts(*p, view, 1, views, other);
    CHECK(!nothing.valid);
  }
  std::vector<std::uint8_t> out(p->polynomial_bytes());
  CHECK_ERROR(ErrorCode::parameter,
              all[0].partial_decryption(view, 1, {1, 2}, masks({1, 2}, 1), Seed{}, out.data()));
  CHECK_ERROR(
      ErrorCode::parameter,
      all[0].partial_decryption(view, 1, {2, 3, 4}, masks({2, 3, 4}, 2), Seed{}, out.data()));
}

TEST(a_party_is_the_same_after_save_and_load) {
  const ParametersPtr p = parameters(2);
  const std::vector<Party> all = meet(p, 2);
  const SecureBuffer<std::uint8_t> state = all[0].save();
  const Party again = Party::load(p, 1, 2, state.data(), state.size());
  CHECK(again.public_share(Seed{3}) == all[0].public_share(Seed{3}));
  std::vector<std::uint8_t> one(p->polynomial_bytes()), two(one.size());
  all[0].deal(2, one.data());
  again.deal(2, two.data());
  CHECK(one == two);
  const SecureBuffer<std::uint8_t> state_again = again.save();
  CHECK(std::equal(state.data(), state.data() + state.size(), state_again.data()));
  CHECK_ERROR(ErrorCode::wire_format, Party::load(p, 1, 2, state.data(), state.size() - 1));
}

TEST(malformed_deals_leave_the_share_as_it_was) {
  const ParametersPtr p = parameters(2);
  Party party(p, 1, 2);
  const SecureBuffer<std::uint8_t> before = party.save();
  std::vector<std::uint8_t> bad(p->polynomial_bytes(), 0xFF);  // every residue is above its prime
  CHECK_ERROR(ErrorCode::wire_format, party.receive(bad.data(), bad.size()));
  CHECK_ERROR(ErrorCode::wire_format, party.receive(bad.data(), bad.size() - 1));
  const SecureBuffer<std::uint8_t> after = party.save();
  CHECK(std::equal(before.data(), before.data() + before.size(), after.data()));
  CHECK_ERROR(ErrorCode::parameter, Party(p, 0, 2));
  CHECK_ERROR(ErrorCode::parameter, Party(p, 3, 2));
  CHECK_ERROR(ErrorCode::parameter, Party(p, 1, 3));
}

TEST(parameters_without_room_for_smudging_are_refused) {
  ParameterLiteral literal = parameters(2)->literal();
  literal.smudging_bits = 39;  // 2 * 2^39 is above the prime of 40 bits
  CHECK_ERROR(ErrorCode::parameter, Parameters{literal});
  literal = parameters(2)->literal();
  literal.smudging_primes = 2;
  CHECK_ERROR(ErrorCode::parameter, Parameters{literal});
  literal = parameters(2)->literal();
  literal.parties = 129;
  CHECK_ERROR(ErrorCode::parameter, Parameters{literal});
  literal = parameters(2)->literal();
  literal.guard_bits = 3;
  CHECK_ERROR(ErrorCode::parameter, Parameters{literal});
  literal = parameters(2)->literal();
  literal.parties = 0;
  CHECK_ERROR(ErrorCode::parameter, Parameters{literal});
}

int main() { return quancrypt::testing::run_all(); }
