// Deals from any bytes: taken in whole, once, or refused without a trace in the share.
#include <cstring>

#include "base/error.h"
#include "input.h"
#include "simd/arith.h"
#include "threshold.h"
#include "wire/residues.h"

using namespace quancrypt;

namespace {

/// The share, which stands at the end of a party's state.
std::vector<std::uint64_t> share_of(const Party& party) {
  const Parameters& p = *party.parameters();
  const SecureBuffer<std::uint8_t> state = party.save();
  std::vector<std::uint64_t> share(p.data_primes() * p.degree());
  unpack_polynomial(p.ring(), p.data_primes(), state.data() + state.size() - p.polynomial_bytes(),
                    share.data());
  return share;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Party party(fuzz::threshold_set(), 1, fuzz::kNeeded);
  static std::vector<std::uint64_t> before = share_of(party);
  fuzz::Input input(data, size);
  const Parameters& parameters = *fuzz::threshold_set();
  const RnsRing& ring = parameters.ring();
  const fuzz::Bytes body = fuzz::body(input, parameters.polynomial_bytes());
  fuzz::patch(input, body);
  bool taken = false;
  try {
    party.receive(body.data(), body.size());
    taken = true;
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  const std::vector<std::uint64_t> after = share_of(party);
  if (!taken) {
    fuzz::require(after == before, "a refused deal left a trace");
    return 0;
  }
  fuzz::require(body.size() == parameters.polynomial_bytes(), "a deal of a wrong size");
  std::vector<std::uint64_t> dealt(after.size());
  unpack_polynomial(ring, parameters.data_primes(), body.data(), dealt.data());
  for (std::size_t i = 0; i < after.size(); ++i) {
    const std::uint64_t p = ring.modulus(i / ring.degree()).p;
    fuzz::require(after[i] == simd::add_mod(before[i], dealt[i], p), "a share is another sum");
  }
  before = after;
  return 0;
}
