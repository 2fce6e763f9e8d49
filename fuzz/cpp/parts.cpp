// Partial decryptions: a party's answer to any ciphertext is well-formed; combining any bytes with a
// ciphertext gives an error, or a plaintext that is c0 and all parts.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "input.h"
#include "multiparty/combine.h"
#include "simd/arith.h"
#include "simd/dispatch.h"
#include "threshold.h"
#include "wire/residues.h"

using namespace quancrypt;

namespace {

class Taken final : public PlaintextSink {
 public:
  explicit Taken(std::size_t size) : residues(size) {}
  [[nodiscard]] std::size_t workers() const override { return 1; }
  void take(std::size_t, std::size_t, std::uint64_t* plaintext) override {
    std::copy_n(plaintext, residues.size(), residues.begin());
  }
  std::vector<std::uint64_t> residues;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Party party(fuzz::threshold_set(), 1, fuzz::kNeeded);
  fuzz::Input input(data, size);
  const Parameters& parameters = *fuzz::threshold_set();
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  const bool answers = input.byte() % 4 == 0;
  const fuzz::Bytes total = fuzz::body(input, body_bytes(parameters, 1, false));
  fuzz::patch(input, total);
  const BodyView view{total.data(), total.size(), std::nullopt};
  std::vector<fuzz::Bytes> parts;
  std::vector<ByteView> views;
  try {
    if (answers) {
      SecureBuffer<PairMask> masks(1);
      masks[0] = {Seed{input.byte()}, input.byte() % 2 == 1};
      parts.emplace_back(parameters.polynomial_bytes());
      party.partial_decryption(view, 1, {1, 2 + input.byte() % 2U}, masks, Seed{1},
                               parts[0].data());
    } else {
      parts.push_back(fuzz::body(input, parameters.polynomial_bytes()));
      fuzz::patch(input, parts[0]);
    }
    views.push_back({parts[0].data(), parts[0].size()});
    views.push_back(views[0]);
    Taken sink(primes * n);
    combine_parts(parameters, view, 1, views, sink);
    std::vector<std::uint64_t> sum(primes * n);
    std::vector<std::uint64_t> part(primes * n);
    read_polynomial(parameters, view, 0, 0, sum.data());
    unpack_polynomial(ring, primes, parts[0].data(), part.data());
    for (std::size_t i = 0; i < primes; ++i) {
      for (std::size_t c = i * n; c < (i + 1) * n; ++c) {
        sum[c] = (sum[c] + 2 * part[c]) % ring.modulus(i).p;
      }
      simd::kernels().ntt_inverse(sum.data() + i * n, ring.ntt(i));
    }
    fuzz::require(sum == sink.residues, "parts do not add up");
  } catch (const Error& error) {
    fuzz::require(error.code() == ErrorCode::wire_format, "another error than 'wire_format'");
  }
  return 0;
}
