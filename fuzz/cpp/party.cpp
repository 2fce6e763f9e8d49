// States of a party from any bytes, as they come out of an opened file.
#include "multiparty/party.h"

#include <cstring>

#include "base/error.h"
#include "input.h"
#include "threshold.h"

using namespace quancrypt;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::threshold_set();
  const std::size_t key = parameters->degree() / 4;
  const std::size_t expected = key + 2 * sizeof(Seed) + parameters->polynomial_bytes();
  const std::size_t point = input.byte() % 8 == 0 ? input.any_number() : 1 + input.byte() % 3;
  const std::size_t threshold = input.byte() % 8 == 0 ? input.any_number() : 1 + input.byte() % 3;
  const bool ternary = input.byte() % 4 != 0;
  const fuzz::Bytes body = fuzz::body(input, expected);
  if (ternary) {  // mostly: no coefficient of code 3, which random bytes always hold
    for (std::size_t i = 0; i < std::min(key, body.size()); ++i) {
      std::uint8_t& byte = body.data()[i];
      byte = static_cast<std::uint8_t>(byte & ~((byte & (byte >> 1) & 0x55U) << 1));
    }
  }
  fuzz::patch(input, body);
  const bool allowed =
      point >= 1 && point <= fuzz::kParties && threshold >= 1 && threshold <= fuzz::kParties;
  try {
    const Party party = Party::load(parameters, point, threshold, body.data(), body.size());
    fuzz::require(allowed, "a party beyond the parameters");
    const SecureBuffer<std::uint8_t> saved = party.save();
    fuzz::require(
        saved.size() == body.size() && std::memcmp(saved.data(), body.data(), body.size()) == 0,
        "a party is not saved as it was loaded");
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format ||
                      (!allowed && error.code() == ErrorCode::parameter),
                  "another error than the one that is due");
  }
  return 0;
}
