// Public shares from any bytes: a key that is their sum, or refused.
#include <vector>

#include "base/error.h"
#include "input.h"
#include "multiparty/combine.h"
#include "simd/arith.h"
#include "threshold.h"
#include "wire/residues.h"

using namespace quancrypt;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const ParametersPtr& parameters = fuzz::threshold_set();
  const RnsRing& ring = parameters->ring();
  const std::size_t primes = ring.prime_count();
  const std::size_t bytes = polynomial_bytes(ring, primes);
  const std::size_t count = 1 + input.byte() % fuzz::kParties;
  std::vector<fuzz::Bytes> bodies;
  std::vector<ByteView> views;
  for (std::size_t i = 0; i < count; ++i) {
    bodies.push_back(i + 1 == count ? fuzz::body(input, bytes) : input.tiled(bytes));
    fuzz::patch(input, bodies.back());
    views.push_back({bodies.back().data(), bodies.back().size()});
  }
  Seed common{};
  common[0] = input.byte();
  std::vector<std::uint64_t> sum(primes * ring.degree());
  std::vector<std::uint64_t> one(sum.size());
  bool sound = true;
  for (const ByteView& view : views) {
    try {
      if (view.size != bytes) throw Error(ErrorCode::wire_format, "size");
      unpack_polynomial(ring, primes, view.data, one.data());
    } catch (const Error&) {
      sound = false;
    }
    for (std::size_t i = 0; sound && i < sum.size(); ++i) {
      sum[i] = simd::add_mod(sum[i], one[i], ring.modulus(i / ring.degree()).p);
    }
  }
  try {
    const PublicKey key = combine_public_shares(parameters, common, views);
    fuzz::require(sound, "a malformed public share was taken");
    for (std::size_t i = 0; i < sum.size(); ++i) {
      fuzz::require(key.ntt(0, i / ring.degree())[i % ring.degree()] == sum[i],
                    "the joint key is another sum");
    }
    fuzz::require(key.seed() == common, "the seed is another");
  } catch (const Error& error) {
    fuzz::require(!sound, "sound public shares were refused");
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  return 0;
}
