// Primes, transforms and modular arithmetic against SEAL's and against plain 128-bit arithmetic.
#include <bit>
#include <random>

#include "base/error.h"
#include "check.h"
#include "ring/ring.h"
#include "ring/samplers.h"
#include "seal/seal.h"
#include "seal/util/ntt.h"
#include "seal/util/numth.h"
#include "simd/arith.h"
#include "simd/dispatch.h"

using namespace quancrypt;

namespace {

std::vector<std::uint64_t> random_residues(std::size_t n, std::uint64_t p, unsigned seed) {
  std::mt19937_64 rng(seed);
  std::vector<std::uint64_t> x(n);
  for (auto& value : x) value = rng() % p;
  x[0] = p - 1;
  x[1] = 0;
  return x;
}

}  // namespace

TEST(primes_are_the_largest_and_agree_with_seal) {
  for (const std::uint32_t bits : {20U, 30U, 41U, 47U, 50U, 60U}) {
    const auto primes = find_primes(8192, bits, 3, {});
    const auto expected = seal::util::get_primes(2 * 8192, static_cast<int>(bits), 3);
    CHECK(primes.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) CHECK(primes[i] == expected[i].value());
  }
  CHECK(find_primes(8192, 41, 2, {find_primes(8192, 41, 1, {})[0]})[0] ==
        find_primes(8192, 41, 2, {})[1]);
  CHECK(find_primes(32768, 10, 1, {}).empty());
  CHECK(!is_prime(0) && !is_prime(1) && is_prime(2) && !is_prime(561) && !is_prime(3215031751));
  CHECK(is_prime(1152921504606830593) && !is_prime(1152921504606830595));
}

TEST(reduction_agrees_with_plain_division) {
  std::mt19937_64 rng(5);
  for (const std::uint64_t p : {std::uint64_t{3}, std::uint64_t{65537},
                                std::uint64_t{2199023190017}, std::uint64_t{1152921504606830593}}) {
    const Modulus m = make_modulus(p);
    for (int i = 0; i < 20000; ++i) {
      simd::u128 x = static_cast<simd::u128>(rng()) << 64 | rng();
      if (i % 4 == 1) x = static_cast<simd::u128>(p) * rng();      // multiples
      if (i % 4 == 2) x = static_cast<simd::u128>(p) * rng() - 1;  // just below
      if (i == 0) x = ~simd::u128{0};
      CHECK(simd::reduce_128(x, m) == static_cast<std::uint64_t>(x % p));
    }
  }
}

TEST(ntt_equals_seal_and_inverts) {
  for (const std::size_t n : {1024U, 2048U, 4096U, 8192U, 16384U, 32768U}) {
    for (const std::uint32_t bits : {20U, 41U, 48U, 50U, 60U}) {
      const std::uint64_t p = find_primes(n, bits, 1, {})[0];
      const RnsRing ring(n, {p});
      const seal::util::NTTTables oracle(std::countr_zero(n), seal::Modulus(p));
      const auto x = random_residues(n, p, bits);
      auto expected = x;
      seal::util::ntt_negacyclic_harvey(seal::util::CoeffIter(expected.data()), oracle);
      for (const simd::KernelTable* set : simd::available_kernels()) {
        auto ours = x;
        set->ntt_forward(ours.data(), ring.ntt(0));
        CHECK(ours == expected);
        set->ntt_inverse(ours.data(), ring.ntt(0));
        CHECK(ours == x);
      }
    }
  }
}

TEST(ntt_of_extreme_values_equals_seal) {
  const std::size_t n = 4096;
  const std::uint64_t p = find_primes(n, 50, 1, {})[0];
  const RnsRing ring(n, {p});
  const seal::util::NTTTables oracle(12, seal::Modulus(p));
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1}, p - 1}) {
    std::vector<std::uint64_t> expected(n, value);
    seal::util::ntt_negacyclic_harvey(seal::util::CoeffIter(expected.data()), oracle);
    for (const simd::KernelTable* set : simd::available_kernels()) {
      std::vector<std::uint64_t> ours(n, value);
      set->ntt_forward(ours.data(), ring.ntt(0));
      CHECK(ours == expected);
      set->ntt_inverse(ours.data(), ring.ntt(0));
      CHECK(ours == std::vector<std::uint64_t>(n, value));
    }
  }
}

TEST(rings_refuse_what_is_no_ring) {
  const std::uint64_t p = find_primes(4096, 41, 1, {})[0];
  CHECK_ERROR(ErrorCode::parameter, RnsRing(4095, {p}));
  CHECK_ERROR(ErrorCode::parameter, RnsRing(512, {p}));
  CHECK_ERROR(ErrorCode::parameter, RnsRing(4096, {}));
  CHECK_ERROR(ErrorCode::parameter, RnsRing(4096, {p, p}));
  CHECK_ERROR(ErrorCode::parameter, RnsRing(4096, {p + 2}));
  CHECK_ERROR(ErrorCode::parameter, RnsRing(4096, {1000003}));  // prime, but not 1 mod 2N
  CHECK_ERROR(ErrorCode::parameter, RnsRing(4096, {~std::uint64_t{0}}));
}

TEST(samplers_have_their_distributions) {
  const std::size_t n = 1 << 15;
  std::vector<std::int8_t> small(n);
  std::vector<std::uint8_t> scratch(6 * n);
  const Seed seed = {42};
  Prng prng(seed, {0, kSecretPart});
  double sum = 0;
  double squares = 0;
  std::size_t count[3] = {0, 0, 0};
  for (int repeat = 0; repeat < 8; ++repeat) {
    sample_centred_binomial(prng, small.data(), n, scratch.data());
    for (const std::int8_t e : small) {
      CHECK(e >= -21 && e <= 21);
      sum += e;
      squares += e * e;
    }
  }
  const double draws = 8.0 * static_cast<double>(n);
  CHECK(std::abs(sum / draws) < 5 * std::sqrt(10.5 / draws));
  CHECK(std::abs(squares / draws - 10.5) < 5 * 10.5 * std::sqrt(2 / draws));
  sample_ternary(prng, small.data(), n, scratch.data());
  for (const std::int8_t s : small) ++count[s + 1];
  for (const std::size_t c : count) {
    CHECK(std::abs(static_cast<double>(c) - n / 3.0) < 5 * std::sqrt(n * 2 / 9.0));
  }
}

TEST(uniform_sampler_rejects_and_is_reproducible) {
  // 12289 is 75 % of 2^14: a quarter of all draws is rejected.
  const Modulus modulus = make_modulus(12289);
  const std::size_t n = 4096;
  const Seed seed = {7};
  std::vector<std::uint64_t> x(n);
  std::vector<std::uint64_t> y(n);
  Prng first(seed, {1, 0});
  Prng second(seed, {1, 0});
  sample_uniform(first, x.data(), n, modulus);
  sample_uniform(second, y.data(), n, modulus);
  CHECK(x == y);
  double sum = 0;
  for (const std::uint64_t value : x) {
    CHECK(value < 12289);
    sum += static_cast<double>(value);
  }
  CHECK(std::abs(sum / n - 6144) < 5 * 12289 / std::sqrt(12.0 * n));
  // The definition, read bit by bit.
  std::vector<std::uint8_t> bytes(4 * n);
  Prng(seed, {1, 0}).read(bytes.data(), bytes.size());
  std::vector<std::uint64_t> draws;
  for (std::size_t i = 0; 14 * (i + 1) <= 8 * bytes.size(); ++i) {
    std::uint64_t value = 0;
    for (std::size_t bit = 0; bit < 14; ++bit) {
      const std::size_t at = 14 * i + bit;
      value |= static_cast<std::uint64_t>(bytes[at / 8] >> (at % 8) & 1) << bit;
    }
    draws.push_back(value);
  }
  std::size_t next = n;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t expected = draws[i];
    while (expected >= 12289) expected = draws[next++];
    CHECK(x[i] == expected);
  }
}

int main() { return testing::run_all(); }
