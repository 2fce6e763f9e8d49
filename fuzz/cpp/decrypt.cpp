// Decryption of bodies that nobody encrypted: an error, or numbers within the range of a sum.
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "input.h"
#include "packing/slots.h"
#include "packing/unpack_dequantize.h"
#include "rlwe/decryptor.h"
#include "sets.h"
#include "simd/dispatch.h"

using namespace quancrypt;

namespace {

const SecretKey& key_of(const ParametersPtr& parameters) {
  static const std::vector<SecretKey> keys = [] {
    std::vector<SecretKey> made;
    for (const ParametersPtr& set : fuzz::sets()) {
      std::vector<std::uint8_t> body(set->degree() / 4);  // the same in every run
      for (std::size_t i = 0; i < body.size(); ++i) body[i] = i % 3 == 0 ? 0x64 : 0x19;
      made.push_back(SecretKey::load(set, body.data(), body.size()));
    }
    return made;
  }();
  for (const SecretKey& key : keys) {
    if (key.parameters() == parameters) return key;
  }
  std::abort();
}

/// The plaintext `values`, encrypted with zero noise and c1 = 0: what decrypts to a valid sum.
void write_valid(const Parameters& parameters, const std::uint8_t* fields, std::size_t count,
                 const fuzz::Bytes& body) {
  const std::size_t n = parameters.degree();
  const ParameterLiteral& p = parameters.literal();
  std::vector<std::uint64_t> row(parameters.data_primes() * n);
  const std::uint64_t largest = std::uint64_t{2} * static_cast<std::uint64_t>(parameters.q_max());
  for (std::size_t c = 0; c < n; ++c) {
    const std::uint64_t field = fields[c % count] % (largest + 1);
    for (std::size_t i = 0; i < parameters.data_primes(); ++i) {
      const Modulus& modulus = parameters.ring().modulus(i);
      row[i * n + c] = field * power_mod(2, p.guard_bits, modulus) % modulus.p;
    }
  }
  for (std::size_t i = 0; i < parameters.data_primes(); ++i) {
    simd::kernels().ntt_forward(row.data() + i * n, parameters.ring().ntt(i));
  }
  write_polynomial(parameters, row.data(), 0, body.data());
  std::fill_n(body.data() + parameters.polynomial_bytes(), parameters.polynomial_bytes(), 0);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::choose_set(input);
  const SecretKey& key = key_of(parameters);
  const bool packed = parameters->literal().encoding == Encoding::packed;
  const std::size_t each = parameters->values_per_ciphertext();
  const bool valid = packed && input.byte() % 2 == 1;
  const bool integers = input.byte() % 2 == 1;
  const std::size_t first = input.number(2) % (each + 1);
  const std::uint64_t weight = 1 + input.byte() % parameters->literal().max_weight;
  // Two tensors in one or two ciphertexts, whose ends they may leave empty.
  std::vector<std::size_t> counts = {first, input.number(2) % (each - first + 1)};
  if (input.byte() % 4 == 0) counts[1] += each;
  const std::size_t values = counts[0] + counts[1];
  const std::size_t ciphertexts = parameters->ciphertext_count(values);
  const std::size_t expected = body_bytes(*parameters, ciphertexts, false);
  std::uint8_t fields[8];
  for (std::uint8_t& field : fields) field = input.byte();
  const fuzz::Bytes body =
      valid && ciphertexts == 1 ? fuzz::Bytes(expected) : fuzz::body(input, expected);
  if (valid && ciphertexts == 1) write_valid(*parameters, fields, sizeof(fields), body);
  if (input.byte() % 2 == 1) fuzz::patch(input, body);
  const BodyView view{body.data(), body.size(), std::nullopt};
  try {
    if (!packed) {
      std::vector<float> out(values);
      SlotSink sink(parameters->slot_layout(), out.data(), values,
                    1.0 / static_cast<double>(weight), 1);
      decrypt(key, view, ciphertexts, sink);
      return 0;
    }
    const auto q_max = static_cast<std::uint64_t>(parameters->q_max());
    const simd::SumLimits limits{weight * 2 * q_max, weight * parameters->literal().noise_bound};
    std::vector<std::int64_t> out(values);
    std::vector<float> floats(values);
    std::vector<OutputSegment> segments;
    for (std::size_t i = 0, at = 0; i < 2; at += counts[i++]) {
      void* target = integers ? static_cast<void*>(out.data() + at) : floats.data() + at;
      segments.push_back({target, counts[i], 0.5});
    }
    UnpackDequantizeSink sink(parameters->layout(), parameters->degree(), std::move(segments),
                              integers, static_cast<std::int64_t>(weight * q_max), limits, 1);
    decrypt(key, view, ciphertexts, sink);
    if (!sink.valid() || !integers) return 0;
    for (const std::int64_t value : out) {
      fuzz::require(std::abs(value) <= static_cast<std::int64_t>(weight * q_max),
                    "a value that no sum has");
    }
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  return 0;
}
