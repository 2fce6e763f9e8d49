// Bodies of updates, seeded and written out: checked, read, written again, and summed with any weight.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "input.h"
#include "rlwe/aggregator.h"
#include "sets.h"
#include "simd/dispatch.h"

using namespace quancrypt;

namespace {

/// The largest number of values that a header may state (quancrypt_native/layout.py).
constexpr std::uint64_t kMaxValues = std::uint64_t{1} << 44;

bool passes(const Parameters& parameters, const BodyView& view, std::size_t ciphertexts) {
  try {
    check_residues(parameters, view, ciphertexts);
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
    return false;
  }
  return true;
}

/// Reads every polynomial and writes it again: the same bytes, the same checksum.
void round_trip(const Parameters& parameters, const BodyView& view, std::size_t ciphertexts) {
  const std::size_t row = parameters.degree() * parameters.data_primes();
  const std::size_t bytes = parameters.polynomial_bytes();
  std::vector<std::uint64_t> residues(row);
  std::vector<std::uint8_t> written(bytes);
  for (std::size_t index = 0; index < ciphertexts; ++index) {
    for (std::size_t part = 0; part < 2; ++part) {
      read_polynomial(parameters, view, index, part, residues.data());
      for (std::size_t i = 0; i < parameters.data_primes(); ++i) {
        const std::size_t n = parameters.degree();
        const std::uint64_t* prime = residues.data() + i * n;
        fuzz::require(*std::max_element(prime, prime + n) < parameters.ring().modulus(i).p,
                      "a residue out of range");
      }
      if (part == 1 && view.seed) continue;
      const std::size_t number = view.seed ? index : 2 * index + part;
      const std::uint32_t crc = write_polynomial(parameters, residues.data(), 0, written.data());
      fuzz::require(std::memcmp(written.data(), view.data + number * bytes, bytes) == 0,
                    "a polynomial is not written as it was read");
      fuzz::require(crc == simd::kernels().crc32c(0, view.data + number * bytes, bytes),
                    "another checksum");
    }
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::choose_set(input);
  const bool seeded = input.byte() % 2 == 1;
  const std::uint8_t claim = input.byte();
  const std::size_t ciphertexts =
      claim % 16 == 0 ? parameters->ciphertext_count(input.any_number() % (kMaxValues + 1))
                      : claim % 3;
  const std::uint64_t own_weight = input.byte() % 4 == 0 ? input.any_number() : 1;
  const std::uint64_t factor = input.byte() % 4 == 0 ? input.any_number() : 1 + input.byte() % 4;
  const fuzz::Bytes body =
      fuzz::body(input, claim % 16 == 0 ? 0 : body_bytes(*parameters, ciphertexts, seeded));
  fuzz::patch(input, body);
  BodyView view{body.data(), body.size(), std::nullopt};
  if (seeded) view.seed = Seed{claim};
  const bool sound = passes(*parameters, view, ciphertexts);
  if (!sound && body.size() != body_bytes(*parameters, ciphertexts, seeded)) return 0;
  if (sound) round_trip(*parameters, view, ciphertexts);

  Aggregator aggregator(parameters, ciphertexts);
  const std::uint64_t limit = parameters->literal().max_weight;
  const bool fits = own_weight >= 1 && factor >= 1 && own_weight <= limit && factor <= limit &&
                    own_weight * factor <= limit;
  bool added = false;
  try {
    aggregator.add(view, own_weight, factor);
    added = true;
  } catch (const Error& error) {
    const ErrorCode expected = own_weight < 1 || factor < 1 ? ErrorCode::parameter
                               : !fits                      ? ErrorCode::capacity
                                                            : ErrorCode::wire_format;
    fuzz::require(error.code() == expected, "another error than the first that is due");
  }
  fuzz::require(added == (sound && fits), "a sum took what the check refuses, or the reverse");
  fuzz::require(aggregator.weight() == (added ? own_weight * factor : 0), "the sum's weight");
  std::vector<std::uint8_t> sum(body_bytes(*parameters, ciphertexts, false));
  aggregator.write(sum.data());
  if (!added) {
    fuzz::require(std::count(sum.begin(), sum.end(), 0) == static_cast<std::ptrdiff_t>(sum.size()),
                  "a refused update left a trace");
  } else if (!seeded && factor == 1 && !sum.empty()) {
    fuzz::require(std::memcmp(sum.data(), body.data(), sum.size()) == 0, "a sum of one update");
  }
  return 0;
}
