#include "multiparty/combine.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

namespace quancrypt {
namespace {

void check_size(const char* what, std::size_t size, std::size_t expected) {
  if (size != expected) {
    throw Error(ErrorCode::wire_format, std::string(what) + " has " + std::to_string(size) +
                                            " bytes; expected " + std::to_string(expected));
  }
}

/// sum[degree * primes] += x, prime by prime.
void add_rows(const RnsRing& ring, std::size_t primes, const std::uint64_t* x, std::uint64_t* sum) {
  const std::size_t n = ring.degree();
  for (std::size_t i = 0; i < primes; ++i) {
    simd::kernels().add(sum + i * n, x + i * n, n, ring.modulus(i));
  }
}

}  // namespace

PublicKey combine_public_shares(ParametersPtr parameters, const Seed& common,
                                const std::vector<ByteView>& shares) {
  const RnsRing& ring = parameters->ring();
  const std::size_t primes = ring.prime_count();
  const std::size_t bytes = polynomial_bytes(ring, primes);
  std::vector<std::uint64_t> sum(primes * ring.degree());
  std::vector<std::uint64_t> share(sum.size());
  for (const ByteView& view : shares) {
    check_size("a public share", view.size, bytes);
    unpack_polynomial(ring, primes, view.data, share.data());
    add_rows(ring, primes, share.data(), sum.data());
  }
  std::vector<std::uint8_t> packed(bytes);
  pack_polynomial(ring, primes, sum.data(), packed.data());
  return PublicKey::load(std::move(parameters), common, packed.data(), packed.size());
}

void combine_parts(const Parameters& parameters, const BodyView& body, std::size_t ciphertexts,
                   const std::vector<ByteView>& parts, PlaintextSink& sink) {
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  const std::size_t bytes = parameters.polynomial_bytes();
  check_body_size(parameters, body, ciphertexts);
  for (const ByteView& part : parts) {
    check_size("a partial decryption", part.size, ciphertexts * bytes);
  }
  std::vector<SecureBuffer<std::uint64_t>> sums(sink.workers());
  std::vector<SecureBuffer<std::uint64_t>> scratch(sink.workers());
  parallel_for(ciphertexts, sums.size(), [&](std::size_t index, std::size_t worker) {
    if (sums[worker].size() == 0) {
      sums[worker] = SecureBuffer<std::uint64_t>(primes * n);
      scratch[worker] = SecureBuffer<std::uint64_t>(primes * n);
    }
    std::uint64_t* sum = sums[worker].data();
    read_polynomial(parameters, body, index, 0, sum);
    for (const ByteView& part : parts) {
      unpack_polynomial(ring, primes, part.data + index * bytes, scratch[worker].data());
      add_rows(ring, primes, scratch[worker].data(), sum);
    }
    QUANCRYPT_SECRET(sum, primes * n * sizeof(std::uint64_t));  // the plaintext of a sum
    for (std::size_t i = 0; i < primes; ++i) simd::kernels().ntt_inverse(sum + i * n, ring.ntt(i));
    sink.take(index, worker, sum);
  });
}

}  // namespace quancrypt
