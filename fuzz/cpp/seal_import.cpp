// Streams of SEAL: bytes of a good one changed, or any bytes. An error, or a body in range.
#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "input.h"
#include "seal_bridge/exchange.h"
#include "sets.h"

using namespace quancrypt;

namespace {

/// Numbers of polynomials, coefficients, primes and words, which SEAL before 4.4 believes: it allocates
/// what they say (docs/fuzzing.md).
bool states_a_size(std::size_t at) { return (at >= 49 && at < 73) || (at >= 105 && at < 113); }

struct Case {
  seal_bridge::Context context;
  std::string stream;  // of one good ciphertext
};

Case make(const ParametersPtr& parameters) {
  Case made{seal_bridge::Context(parameters), {}};
  const std::vector<std::uint8_t> zeros(body_bytes(*parameters, 1, false));
  const BodyView view{zeros.data(), zeros.size(), std::nullopt};
  made.stream = seal_bridge::export_ciphertexts(made.context, view, 1).at(0);
  return made;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Case cases[] = {make(fuzz::sets()[0]), make(fuzz::sets()[1]), make(fuzz::sets()[2])};
  fuzz::Input input(data, size);
  const Case& chosen = cases[input.byte() % 3];
  const Parameters& parameters = chosen.context.parameters();
  std::string stream;
  if (input.byte() % 8 == 0) {
    const fuzz::Bytes rest = input.rest();
    stream.assign(reinterpret_cast<const char*>(rest.data()),
                  std::min<std::size_t>(rest.size(), 48));
  } else {
    stream = chosen.stream;
    if (input.byte() % 4 == 0) stream.resize(input.number(2) % (stream.size() + 16));
    while (input.left() > 0 && !stream.empty()) {
      // Mostly in the headers, which are the first 130 bytes.
      const std::size_t at =
          (input.byte() % 4 == 0 ? input.number(2) : input.byte()) % stream.size();
      const char value = static_cast<char>(input.byte());
      if (!states_a_size(at)) stream[at] = value;
    }
  }
  const fuzz::Bytes exact(stream.size());
  std::copy(stream.begin(), stream.end(), exact.data());
  const std::string_view view(reinterpret_cast<const char*>(exact.data()), exact.size());
  const fuzz::Bytes body(body_bytes(parameters, 1, false));
  try {
    seal_bridge::import_ciphertexts(chosen.context, {view}, body.data());
    check_residues(parameters, {body.data(), body.size(), std::nullopt}, 1);
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  return 0;
}
