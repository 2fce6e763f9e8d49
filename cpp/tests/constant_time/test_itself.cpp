// The test itself: what leaks is found, what does not is not reported.
#include "ring/samplers.h"
#include "rlwe/security.h"
#include "secrets.h"
#include "simd/arith.h"
#include "simd/dispatch.h"

using namespace quancrypt;
using namespace quancrypt::testing;

TEST(a_branch_on_a_secret_is_found) {
  std::vector<std::uint64_t> secret(1, 5);
  volatile std::uint64_t taken = 0;
  mark_secret(secret);
  const auto branch = [&] {
    if ((secret[0] & 1) != 0) taken = 1;
  };
  CHECK(leaks(branch));
}

TEST(an_index_from_a_secret_is_found) {
  std::vector<std::uint64_t> secret(1, 5);
  const std::vector<std::uint64_t> table(16, 3);
  volatile std::uint64_t read = 0;
  mark_secret(secret);
  const auto look_up = [&] { read = table[secret[0]]; };
  CHECK(leaks(look_up));
}

TEST(functions_for_public_numbers_are_found_when_given_secrets) {
  const Modulus modulus = make_modulus(find_primes(1024, 41, 1, {})[0]);
  std::vector<std::uint64_t> x = secret_residues(64, modulus.p);
  volatile std::size_t at = 0;
  const auto find = [&] { at = simd::kernels().find_not_below(x.data(), x.size(), modulus.p); };
  CHECK(leaks(find));
  const auto sample = [&] {
    const SecretSeed seed;
    Prng prng(seed.get(), {0, kSecretPart});
    std::vector<std::uint64_t> out(1024);
    sample_uniform(prng, out.data(), out.size(), modulus);
  };
  CHECK(leaks(sample));
}

TEST(what_is_declassified_may_be_branched_on) {
  std::vector<std::uint64_t> secret(1, 5);
  volatile std::uint64_t taken = 0;
  mark_secret(secret);
  CHECK(is_secret(secret));
  mark_public(secret);
  CHECK(!is_secret(secret));
  const auto branch = [&] {
    if ((secret[0] & 1) != 0) taken = 1;
  };
  CHECK(!leaks(branch));
}
