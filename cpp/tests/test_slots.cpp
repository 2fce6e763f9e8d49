// The slot encoding against SEAL's: plaintexts equal bit for bit, decoded messages to rounding, whole
// public-key encryptions bit for bit; and every kernel set against the portable one.
#include <algorithm>
#include <cmath>
#include <random>

#include "check.h"
#include "literals.h"
#include "packing/slots.h"
#include "rlwe/decryptor.h"
#include "rlwe/encryptor.h"
#include "seal_oracle.h"
#include "simd/dispatch.h"

using namespace quancrypt;
using quancrypt::testing::Setup;
using quancrypt::testing::slots;

namespace {

std::vector<ParameterLiteral> shapes() {
  return {slots(1024, {27}, 18),
          slots(2048, {54}, 40),
          slots(4096, {36, 36, 37}, 30),
          slots(8192, {60, 40, 40, 60}, 40),
          slots(16384, {60, 40, 40, 40, 60}, 40),
          slots(32768, {60, 50, 50, 60}, 45)};
}

std::vector<double> message(std::size_t count, double size, unsigned seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal(0, size);
  std::vector<double> values(count);
  for (double& value : values) value = normal(rng);
  return values;
}

seal::Plaintext seal_encode(const seal::SEALContext& context, const std::vector<double>& values,
                            double scale) {
  seal::Plaintext plain;
  seal::CKKSEncoder(context).encode(values, scale, plain);
  return plain;
}

/// Our plaintext in NTT form.
std::vector<std::uint64_t> encode(const Setup& s, const std::vector<double>& values) {
  const std::size_t n = s.parameters->degree();
  std::vector<std::uint64_t> out(s.parameters->data_primes() * n);
  SlotSource source(s.parameters->slot_layout(), values.data(), values.size(), 1);
  source.fill(0, 0, out.data());
  for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
    simd::kernels().ntt_forward(out.data() + i * n, s.parameters->ring().ntt(i));
  }
  return out;
}

}  // namespace

TEST(encoding_equals_seal_bit_for_bit) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::size_t slot_count = literal.degree / 2;
    const double scale = s.parameters->slot_layout().scale();
    unsigned seed = 0;
    for (const std::size_t count : {slot_count, slot_count - 1, std::size_t{1}, std::size_t{0}}) {
      for (const double size : {1e-9, 0.03, 1.0, 100.0}) {
        const std::vector<double> values = message(count, size, ++seed);
        const seal::Plaintext expected = seal_encode(s.context.seal(), values, scale);
        const std::vector<std::uint64_t> ours = encode(s, values);
        CHECK(std::equal(ours.begin(), ours.end(), expected.data()));
      }
    }
  }
}

TEST(encoding_near_the_limit_of_the_modulus_equals_seal) {
  const Setup s(slots(8192, {60, 40, 40, 60}, 40));
  const double scale = s.parameters->slot_layout().scale();
  // Coefficients of 62 bits and more, up to 110.
  for (const double size : {0x1p20, 0x1p22, 0x1p23, 0x1p24, 0x1p40, 0x1p65}) {
    const std::vector<double> values = message(4096, size, 5);
    const seal::Plaintext expected = seal_encode(s.context.seal(), values, scale);
    const std::vector<std::uint64_t> ours = encode(s, values);
    CHECK(std::equal(ours.begin(), ours.end(), expected.data()));
  }
}

TEST(decoding_agrees_with_seal) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::size_t n = literal.degree;
    const std::vector<double> values = message(n / 2, 1.0, 9);
    const seal::Plaintext plain =
        seal_encode(s.context.seal(), values, s.parameters->slot_layout().scale());
    std::vector<double> expected;
    seal::CKKSEncoder(s.context.seal()).decode(plain, expected);
    std::vector<std::uint64_t> residues(plain.data(), plain.data() + plain.coeff_count());
    for (std::size_t i = 0; i < s.parameters->data_primes(); ++i) {
      simd::kernels().ntt_inverse(residues.data() + i * n, s.parameters->ring().ntt(i));
    }
    std::vector<float> ours(n / 2);
    SlotSink sink(s.parameters->slot_layout(), ours.data(), ours.size(), 1.0, 1);
    sink.take(0, 0, residues.data());
    for (std::size_t v = 0; v < n / 2; ++v) {
      CHECK(std::fabs(ours[v] - expected[v]) <= 1e-6 * std::fabs(expected[v]) + 1e-9);
    }
  }
}

TEST(public_key_encryption_of_slots_equals_seal_bit_for_bit) {
  for (const ParameterLiteral& literal : shapes()) {
    const Setup s(literal);
    const std::vector<double> values = message(literal.degree / 2, 1.0, 7);
    const Seed noise = fresh_seed();
    std::vector<std::uint8_t> body(body_bytes(*s.parameters, 1, false));
    SlotSource source(s.parameters->slot_layout(), values.data(), values.size(), 2);
    encrypt_public(s.public_key, source, 1, noise, body.data());
    const seal::SEALContext context = testing::context_drawing(s, noise);
    const seal::Plaintext plain = seal_encode(context, values, s.parameters->slot_layout().scale());
    CHECK(testing::equals_seal(s, {body.data(), body.size(), std::nullopt},
                               testing::seal_encrypt_public(s, context, plain)));
  }
}

TEST(slot_kernels_agree) {
  auto sets = simd::available_kernels();
  sets.pop_back();
  const simd::KernelTable& portable = *simd::portable_kernels();
  for (const std::size_t n : {1024U, 2048U, 8192U, 32768U}) {
    const RnsRing ring(n, {find_primes(n, 50, 1, {})[0]});
    const SlotLayout layout(ring, 1, 40);
    std::vector<double> rows = message(n / 2, 1.0, 3);
    rows[0] = 0;
    rows[1] = -0.0;
    std::vector<double> expected(n);
    portable.slots_to_coefficients(rows.data(), layout.table(), 0x1p40 / static_cast<double>(n),
                                   expected.data());
    std::vector<std::int64_t> integers(n);
    CHECK(portable.round_to_integers(expected.data(), n, integers.data()));
    for (std::size_t c = 0; c < n; ++c) {
      CHECK(integers[c] == static_cast<std::int64_t>(std::round(expected[c])));
    }
    std::vector<double> scratch = expected;
    std::vector<double> back(n / 2);
    portable.coefficients_to_slots(scratch.data(), layout.table(), back.data());
    for (std::size_t v = 0; v < n / 2; ++v) CHECK(std::fabs(back[v] * 0x1p-40 - rows[v]) < 1e-12);
    for (const simd::KernelTable* set : sets) {
      std::vector<double> ours(n);
      set->slots_to_coefficients(rows.data(), layout.table(), 0x1p40 / static_cast<double>(n),
                                 ours.data());
      CHECK(ours == expected);
      std::vector<std::int64_t> theirs(n);
      CHECK(set->round_to_integers(ours.data(), n, theirs.data()));
      CHECK(theirs == integers);
      std::vector<double> slots_of_set(n / 2);
      set->coefficients_to_slots(ours.data(), layout.table(), slots_of_set.data());
      CHECK(slots_of_set == back);
    }
  }
}

TEST(rounding_is_half_away_from_zero_and_refuses_what_does_not_fit) {
  const std::vector<double> x = {
      0.5,    -0.5,    1.5,    -1.5,   0.49999999999999994, -0.49999999999999994,
      2.5,    -2.5,    0.0,    -0.0,   4503599627370497.5,  9007199254740993.0,
      0x1p61, -0x1p61, 1e-300, -1e-300};
  for (const simd::KernelTable* set : simd::available_kernels()) {
    std::vector<std::int64_t> out(x.size());
    CHECK(set->round_to_integers(x.data(), x.size(), out.data()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(out[i] == static_cast<std::int64_t>(std::round(x[i])));
    }
    for (const double bad : {0x1p62, -0x1p62, 1e300}) {
      std::vector<double> y(16, 1.0);
      y[11] = bad;
      CHECK(!set->round_to_integers(y.data(), y.size(), out.data()));
    }
  }
}

int main() { return testing::run_all(); }
