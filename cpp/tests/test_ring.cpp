// Primes, transforms and modular arithmetic against SEAL's and against plain 128-bit arithmetic.
#include <algorithm>
#include <bit>
#include <cmath>
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

/// floor(w * 2^64 / p), as it is written.
std::uint64_t quotient(std::uint64_t w, std::uint64_t p) {
  return static_cast<std::uint64_t>((static_cast<simd::u128>(w) << 64) / p);
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

TEST(quotients_without_division_agree_with_plain_division) {
  std::mt19937_64 rng(6);
  for (const std::uint64_t p : {std::uint64_t{3}, std::uint64_t{65537},
                                std::uint64_t{2199023190017}, std::uint64_t{1152921504606830593}}) {
    const Modulus m = make_modulus(p);
    for (int i = 0; i < 20000; ++i) {
      std::uint64_t w = rng() % p;
      if (i < 3) w = std::min<std::uint64_t>(i, p - 1);
      if (i == 3) w = p - 1;
      CHECK(simd::shoup(w, m) == quotient(w, p));
    }
  }
}

TEST(ntt_tables_are_powers_of_the_root) {
  for (const std::uint32_t bits : {20U, 41U, 60U}) {
    const RnsRing ring(1024, find_primes(1024, bits, 1, {}));
    const simd::NttTable& table = ring.ntt(0);
    const Modulus& m = table.modulus;
    const std::uint64_t root = minimal_primitive_root(1024, m);
    for (std::size_t i = 0; i < 1024; ++i) {
      const std::size_t at = reverse_bits(i, table.log_n);
      const std::uint64_t inverse = table.inverse_root[at];
      CHECK(table.root[at] == power_mod(root, i, m));
      CHECK(simd::multiply_mod(inverse, table.root[at], m) == 1);
      CHECK(table.root_shoup[at] == quotient(table.root[at], m.p));
      CHECK(table.inverse_root_shoup[at] == quotient(inverse, m.p));
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

namespace {

/// Of draws with fixed seeds, so that a test passes always or never. Bounds are five standard deviations
/// of what is measured.
struct Sample {
  double draws = 0, sum = 0, squares = 0;

  void add(double x) {
    draws += 1;
    sum += x;
    squares += x * x;
  }
  [[nodiscard]] bool has_mean(double mean, double variance) const {
    return std::abs(sum / draws - mean) < 5 * std::sqrt(variance / draws);
  }
  /// `fourth`: the fourth central moment, of which the spread of the measured variance is made.
  [[nodiscard]] bool has_variance(double mean, double variance, double fourth) const {
    const double measured = squares / draws - 2 * mean * sum / draws + mean * mean;
    return std::abs(measured - variance) < 5 * std::sqrt((fourth - variance * variance) / draws);
  }
};

/// Pearson's test, from both sides: draws that fit too well are not random either.
bool fits(const std::vector<double>& observed, const std::vector<double>& expected) {
  double statistic = 0;
  for (std::size_t i = 0; i < observed.size(); ++i) {
    CHECK(expected[i] >= 5);  // else the statistic is not chi-squared
    statistic += (observed[i] - expected[i]) * (observed[i] - expected[i]) / expected[i];
  }
  const double freedom = static_cast<double>(observed.size()) - 1;
  return std::abs(statistic - freedom) < 5 * std::sqrt(2 * freedom);
}

}  // namespace

TEST(centred_binomial_sampler_has_its_distribution) {
  constexpr std::size_t n = 1 << 15;
  constexpr int kRepeats = 16;
  constexpr int kTail = 13;  // with all that is beyond: eighteen draws are expected
  std::vector<std::int8_t> e(n);
  std::vector<std::uint8_t> scratch(6 * n);
  Prng prng(Seed{42}, {0, kSecretPart});
  Sample sample;
  std::vector<double> observed(2 * kTail + 1);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    sample_centred_binomial(prng, e.data(), n, scratch.data());
    for (const std::int8_t value : e) {
      CHECK(value >= -21 && value <= 21);
      sample.add(value);
      observed[static_cast<std::size_t>(std::clamp<int>(value, -kTail, kTail) + kTail)] += 1;
    }
  }
  // Value k is drawn in C(42, 21 + k) of 2^42 cases.
  std::vector<double> expected(observed.size());
  double ways = 1;
  for (int k = -21; k <= 21; ++k) {
    expected[static_cast<std::size_t>(std::clamp(k, -kTail, kTail) + kTail)] +=
        sample.draws * std::ldexp(ways, -42);
    ways = ways * (21 - k) / (22 + k);
  }
  CHECK(sample.has_mean(0, 10.5));
  CHECK(sample.has_variance(0, 10.5, 3 * 10.5 * 10.5 - 10.5 / 2));
  CHECK(fits(observed, expected));
}

TEST(ternary_sampler_has_its_distribution) {
  constexpr std::size_t n = 1 << 15;
  std::vector<std::int8_t> s(n);
  std::vector<std::uint8_t> scratch(4 * n);
  Prng prng(Seed{43}, {0, kSecretPart});
  Sample sample;
  std::vector<double> observed(3);
  std::vector<double> pairs(9);  // neighbours are independent
  for (int repeat = 0; repeat < 8; ++repeat) {
    sample_ternary(prng, s.data(), n, scratch.data());
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(s[i] >= -1 && s[i] <= 1);
      sample.add(s[i]);
      observed[static_cast<std::size_t>(s[i] + 1)] += 1;
      if (i % 2 == 1) pairs[static_cast<std::size_t>(3 * (s[i - 1] + 1) + s[i] + 1)] += 1;
    }
  }
  CHECK(sample.has_mean(0, 2.0 / 3));
  CHECK(sample.has_variance(0, 2.0 / 3, 2.0 / 3));
  CHECK(fits(observed, std::vector<double>(3, sample.draws / 3)));
  CHECK(fits(pairs, std::vector<double>(9, sample.draws / 18)));
}

TEST(uniform_sampler_has_its_distribution) {
  constexpr std::size_t n = 1 << 15;
  // 12289 is 75 % of 2^14: a quarter of all draws is rejected. The other lies just under 2^41.
  for (const std::uint64_t p : {std::uint64_t{12289}, find_primes(4096, 41, 1, {})[0]}) {
    const Modulus modulus = make_modulus(p);
    std::vector<std::uint64_t> x(n);
    Prng prng(Seed{44}, {0, 0});
    Sample sample;
    std::vector<double> high(256);  // 256th parts of [0, p)
    std::vector<double> low(64);    // last six bits
    std::vector<double> each(p == 12289 ? p : 0);
    for (int repeat = 0; repeat < 16; ++repeat) {
      sample_uniform(prng, x.data(), n, modulus);
      for (const std::uint64_t value : x) {
        CHECK(value < p);
        sample.add(static_cast<double>(value) / static_cast<double>(p));
        high[static_cast<std::size_t>(value * 256 / p)] += 1;
        low[value % 64] += 1;
        if (!each.empty()) each[value] += 1;
      }
    }
    CHECK(sample.has_mean(0.5, 1.0 / 12));
    CHECK(sample.has_variance(0.5, 1.0 / 12, 1.0 / 80));
    const auto share = [&](std::uint64_t from, std::uint64_t to) {
      return sample.draws * static_cast<double>(to - from) / static_cast<double>(p);
    };
    std::vector<double> expected;
    for (std::uint64_t i = 0; i < 256; ++i) {
      expected.push_back(share((i * p + 255) / 256, ((i + 1) * p + 255) / 256));
    }
    CHECK(fits(high, expected));
    expected.clear();
    for (std::uint64_t i = 0; i < 64; ++i) expected.push_back(share(0, (p + 63 - i) / 64));
    CHECK(fits(low, expected));
    if (!each.empty()) CHECK(fits(each, std::vector<double>(each.size(), share(0, 1))));
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

TEST(masks_are_the_numbers_that_scaled_draws_read) {
  // 65537: every other draw is repeated; 43 bits: as good as none.
  for (const std::uint64_t prime : {std::uint64_t{65537}, find_primes(4096, 43, 1, {})[0]}) {
    const Modulus m = make_modulus(prime);
    constexpr std::size_t n = 2 * kUniformPiece;
    const Seed seed{9};
    std::vector<std::uint64_t> expected(n, 5);
    Prng one(seed, {1, 2});
    add_scaled_uniform(one, expected.data(), n, 1, m);
    std::vector<std::uint64_t> sum(n, 5);
    UniformScratch scratch;
    for (const bool negative : {false, true}) {
      Prng two(seed, {1, 2});
      for (std::size_t at = 0; at < n; at += kUniformPiece) {
        add_uniform(two, sum.data() + at, negative, m, scratch);
      }
      if (!negative) CHECK(sum == expected);
    }
    CHECK(sum == std::vector<std::uint64_t>(n, 5));
    CHECK(*std::max_element(expected.begin(), expected.end()) < m.p);
  }
}

int main() { return testing::run_all(); }
