// Secret keys from any bytes, as they come out of an opened key file.
#include <cstring>

#include "base/error.h"
#include "input.h"
#include "rlwe/keys.h"
#include "sets.h"

using namespace quancrypt;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::choose_set(input);
  const std::size_t expected = parameters->degree() / 4;
  const bool ternary = input.byte() % 4 != 0;
  const fuzz::Bytes body = fuzz::body(input, expected);
  if (ternary) {  // mostly: no coefficient of code 3, which random bytes always hold
    for (std::size_t i = 0; i < body.size(); ++i) {
      std::uint8_t& byte = body.data()[i];
      byte = static_cast<std::uint8_t>(byte & ~((byte & (byte >> 1) & 0x55U) << 1));
    }
  }
  bool sound = body.size() == expected;
  for (std::size_t i = 0; i < body.size(); ++i) {
    if (body.data()[i] & (body.data()[i] >> 1) & 0x55) sound = false;
  }
  try {
    const SecretKey key = SecretKey::load(parameters, body.data(), body.size());
    fuzz::require(sound, "a secret key of impossible bytes");
    const SecureBuffer<std::uint8_t> saved = key.save();
    fuzz::require(
        saved.size() == body.size() && std::memcmp(saved.data(), body.data(), body.size()) == 0,
        "a secret key is not saved as it was loaded");
  } catch (const Error& error) {
    fuzz::require(!sound, "a sound secret key was refused");
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  return 0;
}
