#include "rlwe/decryptor.h"

#include <vector>

#include "base/thread_pool.h"
#include "simd/dispatch.h"

namespace quancrypt {
namespace {

struct Workspace {
  SecureBuffer<std::uint64_t> c0;  // becomes the plaintext
  SecureBuffer<std::uint64_t> c1;
};

}  // namespace

void decrypt(const SecretKey& key, const BodyView& body, std::size_t ciphertexts,
             PlaintextSink& sink) {
  const Parameters& parameters = *key.parameters();
  const RnsRing& ring = parameters.ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters.data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  check_body_size(parameters, body, ciphertexts);
  std::vector<Workspace> workspaces(sink.workers());
  parallel_for(ciphertexts, workspaces.size(), [&](std::size_t index, std::size_t worker) {
    Workspace& w = workspaces[worker];
    if (w.c0.size() == 0) {
      w.c0 = SecureBuffer<std::uint64_t>(primes * n);
      w.c1 = SecureBuffer<std::uint64_t>(primes * n);
    }
    read_polynomial(parameters, body, index, 0, w.c0.data());
    read_polynomial(parameters, body, index, 1, w.c1.data());
    for (std::size_t i = 0; i < primes; ++i) {
      std::uint64_t* row = w.c0.data() + i * n;
      kernels.multiply_add(row, w.c1.data() + i * n, key.ntt(i), row, n, ring.modulus(i));
      kernels.ntt_inverse(row, ring.ntt(i));
    }
    sink.take(index, worker, w.c0.data());
  });
}

}  // namespace quancrypt
