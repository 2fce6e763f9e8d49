#include "rlwe/aggregator.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "simd/arith.h"
#include "simd/dispatch.h"

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
  check_body_size(*parameters_, body, ciphertexts_);
  std::vector<std::uint8_t> added(ciphertexts_);
  std::vector<SecureBuffer<std::uint64_t>> scratch(num_threads());
  try {
    parallel_for(ciphertexts_, scratch.size(), [&](std::size_t index, std::size_t worker) {
      add_ciphertext(body, index, factor, scratch[worker]);
      added[index] = 1;
    });
  } catch (...) {
    // A malformed update must leave the sum as it was: take off what was added.
    parallel_for(ciphertexts_, scratch.size(), [&](std::size_t index, std::size_t worker) {
      if (added[index] != 0) subtract_ciphertext(body, index, factor, scratch[worker]);
    });
    throw;
  }
  weight_ += own_weight * factor;
}

void Aggregator::add_ciphertext(const BodyView& body, std::size_t index, std::uint64_t factor,
                                SecureBuffer<std::uint64_t>& scratch) {
  const std::size_t row = parameters_->data_primes() * parameters_->degree();
  if (scratch.size() == 0) scratch = SecureBuffer<std::uint64_t>(2 * row);
  // Both polynomials are read, and checked, before either is added.
  for (std::size_t part = 0; part < 2; ++part) {
    read_polynomial(*parameters_, body, index, part, scratch.data() + part * row);
  }
  add_rows(index, factor, scratch.data());
}

void Aggregator::subtract_ciphertext(const BodyView& body, std::size_t index, std::uint64_t factor,
                                     SecureBuffer<std::uint64_t>& scratch) {
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  const std::size_t row = parameters_->data_primes() * n;
  scratch = SecureBuffer<std::uint64_t>(2 * row);  // zeros
  std::vector<std::uint64_t> negated(row);
  for (std::size_t part = 0; part < 2; ++part) {
    read_polynomial(*parameters_, body, index, part, negated.data());
    for (std::size_t i = 0; i < parameters_->data_primes(); ++i) {
      simd::kernels().subtract_scale(scratch.data() + part * row + i * n, negated.data() + i * n, 1,
                                     simd::shoup(1, ring.modulus(i).p), n, ring.modulus(i));
    }
  }
  add_rows(index, factor, scratch.data());
}

void Aggregator::add_rows(std::size_t index, std::uint64_t factor, const std::uint64_t* residues) {
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters_->data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  std::uint64_t* sum = sums_.data() + 2 * index * primes * n;
  for (std::size_t row = 0; row < 2 * primes; ++row) {
    const Modulus& modulus = ring.modulus(row % primes);
    if (factor == 1) {
      kernels.add(sum + row * n, residues + row * n, n, modulus);
    } else {
      const std::uint64_t w = factor % modulus.p;
      kernels.scale_add(sum + row * n, residues + row * n, w, simd::shoup(w, modulus.p), n,
                        modulus);
    }
  }
}

std::vector<std::uint32_t> Aggregator::write(std::uint8_t* body) const {
  const std::size_t row = parameters_->data_primes() * parameters_->degree();
  std::vector<std::uint32_t> checksums(2 * ciphertexts_);
  parallel_for(2 * ciphertexts_, num_threads(), [&](std::size_t index, std::size_t) {
    checksums[index] = write_polynomial(*parameters_, sums_.data() + index * row, index, body);
  });
  return checksums;
}

}  // namespace quancrypt
