// Smudging under repeated randomness: this program stands in for the operating system's generator, as a
// machine does that is resumed twice from one image. No other program can.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/entropy.h"
#include "check.h"
#include "multiparty/party.h"

using namespace quancrypt;

namespace {

std::uint8_t entropy = 1;  // what every byte of the generator is

ParametersPtr parameters() {
  ParameterLiteral literal;
  literal.degree = 4096;
  for (const std::uint32_t bits : {26U, 40U, 20U}) {
    literal.primes.push_back(find_primes(literal.degree, bits, 1, literal.primes)[0]);
  }
  literal.max_weight = 1;
  literal.bits = 8;
  literal.fields = 1;
  literal.field_bits = 10;
  literal.guard_bits = 2;
  literal.noise_bound = 1 + 3 * literal.degree;
  literal.parties = 3;
  literal.smudging_bits = 34;
  literal.smudging_primes = 1;
  return std::make_shared<const Parameters>(literal);
}

/// The answer of party 1 without masks, as two of the same seed cancel: lambda c1 share + smudging.
std::vector<std::uint8_t> answer(const Party& party, const Seed& request) {
  const Parameters& p = *party.parameters();
  const std::vector<std::uint8_t> body(body_bytes(p, 1, false));
  SecureBuffer<PairMask> masks(2);
  masks[0] = {Seed{4}, false};
  masks[1] = {Seed{4}, true};
  std::vector<std::uint8_t> out(p.polynomial_bytes());
  party.partial_decryption({body.data(), body.size(), std::nullopt}, 1, {1, 2, 3}, masks, request,
                           out.data());
  return out;
}

std::size_t differing(const std::vector<std::uint8_t>& x, const std::vector<std::uint8_t>& y) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < x.size(); ++i) count += x[i] != y[i] ? 1U : 0U;
  return count;
}

}  // namespace

namespace quancrypt {

void fill_entropy(std::uint8_t* out, std::size_t size) { std::memset(out, entropy, size); }

}  // namespace quancrypt

TEST(the_same_randomness_gives_another_request_another_noise) {
  const Party party(parameters(), 1, 2);
  const std::vector<std::uint8_t> first = answer(party, Seed{1});
  CHECK(first == answer(party, Seed{1}));  // the stand-in is in use, and nothing else is random
  const std::vector<std::uint8_t> second = answer(party, Seed{2});
  CHECK(differing(first, second) > first.size() * 9 / 10);
}

TEST(the_same_request_has_another_noise_with_fresh_randomness) {
  const Party party(parameters(), 1, 2);
  const std::vector<std::uint8_t> first = answer(party, Seed{1});
  entropy = 2;
  CHECK(differing(first, answer(party, Seed{1})) > first.size() * 9 / 10);
  entropy = 1;
}

int main() { return testing::run_all(); }
