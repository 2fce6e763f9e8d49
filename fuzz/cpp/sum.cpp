// Sums of several updates, some of them malformed: equal to the sum without those, and well-formed.
#include <vector>

#include "base/error.h"
#include "input.h"
#include "rlwe/aggregator.h"
#include "sets.h"

using namespace quancrypt;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::choose_set(input);
  const RnsRing& ring = parameters->ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters->data_primes();
  const std::size_t ciphertexts = 1 + input.byte() % 2;
  const unsigned updates = 1 + input.byte() % 3;
  Aggregator aggregator(parameters, ciphertexts);
  std::vector<std::uint64_t> expected(2 * ciphertexts * primes * n);
  std::vector<std::uint64_t> residues(primes * n);
  std::uint64_t weight = 0;
  for (unsigned update = 0; update < updates; ++update) {
    const bool seeded = input.byte() % 2 == 1;
    const std::uint64_t factor = 1 + input.byte() % 5;
    const fuzz::Bytes body = input.tiled(body_bytes(*parameters, ciphertexts, seeded));
    fuzz::patch(input, body);
    BodyView view{body.data(), body.size(), std::nullopt};
    if (seeded) view.seed = Seed{static_cast<std::uint8_t>(update)};
    try {
      aggregator.add(view, 1, factor);
    } catch (const Error& error) {
      fuzz::require(error.code() == ErrorCode::wire_format || error.code() == ErrorCode::capacity,
                    "another error than 'wire_format' or 'capacity'");
      continue;
    }
    weight += factor;
    for (std::size_t index = 0; index < 2 * ciphertexts; ++index) {
      read_polynomial(*parameters, view, index / 2, index % 2, residues.data());
      for (std::size_t i = 0; i < primes; ++i) {
        const Modulus& modulus = ring.modulus(i);
        for (std::size_t c = 0; c < n; ++c) {
          std::uint64_t& sum = expected[(index * primes + i) * n + c];
          sum = (sum + residues[i * n + c] * factor) % modulus.p;  // below 2^31
        }
      }
    }
  }
  fuzz::require(aggregator.weight() == weight, "the sum's weight");
  fuzz::require(weight <= parameters->literal().max_weight, "a weight above max_weight");
  std::vector<std::uint8_t> sum(body_bytes(*parameters, ciphertexts, false));
  aggregator.write(sum.data());
  const BodyView view{sum.data(), sum.size(), std::nullopt};
  for (std::size_t index = 0; index < 2 * ciphertexts; ++index) {
    read_polynomial(*parameters, view, index / 2, index % 2, residues.data());
    for (std::size_t i = 0; i < primes * n; ++i) {
      fuzz::require(residues[i] == expected[index * primes * n + i], "a wrong sum");
    }
  }
  return 0;
}
