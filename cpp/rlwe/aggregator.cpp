#include "rlwe/aggregator.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "simd/arith.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

namespace quancrypt {

Aggregator::Aggregator(ParametersPtr parameters, std::size_t ciphertexts)
    : parameters_(std::move(parameters)),
      ciphertexts_(ciphertexts),
      sums_(2 * ciphertexts * parameters_->data_primes() * parameters_->degree()) {}

void Aggregator::add(const BodyView& body, std::uint64_t own_weight, std::uint64_t factor) {
  const std::uint64_t limit = parameters_->literal().max_weight;
  if (factor < 1 || own_weight < 1) throw Error(ErrorCode::parameter, "a weight is below 1");
  if (factor > limit || own_weight > limit || weight_ + own_weight * factor > limit) {
    throw Error(ErrorCode::capacity, "the total weight would be " + std::to_string(weight_) +
                                         " + " + std::to_string(own_weight) + " * " +
                                         std::to_string(factor) +
                                         ", above max_weight = " + std::to_string(limit));
  }
  // Checked before the first addition: a malformed update must leave the sum as it is.
  check_residues(*parameters_, body, ciphertexts_);
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters_->data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  std::vector<std::vector<std::uint64_t>> scratch(num_threads());
  parallel_for(ciphertexts_, [&](std::size_t index, std::size_t worker) {
    std::vector<std::uint64_t>& residues = scratch[worker];
    residues.resize(primes * n);
    for (std::size_t part = 0; part < 2; ++part) {
      read_polynomial(*parameters_, body, index, part, residues.data());
      std::uint64_t* sum = sums_.data() + (2 * index + part) * primes * n;
      for (std::size_t i = 0; i < primes; ++i) {
        const Modulus& modulus = ring.modulus(i);
        if (factor == 1) {
          kernels.add(sum + i * n, residues.data() + i * n, n, modulus);
        } else {
          const std::uint64_t w = factor % modulus.p;
          kernels.scale_add(sum + i * n, residues.data() + i * n, w, simd::shoup(w, modulus.p), n,
                            modulus);
        }
      }
    }
  });
  weight_ += own_weight * factor;
}

void Aggregator::write(std::uint8_t* body) const {
  const std::size_t row = parameters_->data_primes() * parameters_->degree();
  parallel_for(2 * ciphertexts_, [&](std::size_t polynomial, std::size_t) {
    pack_polynomial(parameters_->ring(), parameters_->data_primes(),
                    sums_.data() + polynomial * row,
                    body + polynomial * parameters_->polynomial_bytes());
  });
}

}  // namespace quancrypt
