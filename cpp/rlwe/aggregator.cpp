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
      sums_(2 * ciphertexts * parameters_->data_primes() * parameters_->degree(), MemoryUse::open) {
}

void Aggregator::add(const BodyView& body, std::uint64_t own_weight, std::uint64_t factor) {
  const std::uint64_t limit = parameters_->literal().max_weight;
  if (factor < 1 || own_weight < 1) throw Error(ErrorCode::parameter, "a weight is below 1");
  if (factor > limit || own_weight > limit || weight_ + own_weight * factor > limit) {
    throw Error(ErrorCode::capacity, "the total weight would be " + std::to_string(weight_) +
                                         " + " + std::to_string(own_weight) + " * " +
                                         std::to_string(factor) +
                                         ", above max_weight = " + std::to_string(limit));
  }
  const Guard guard(*this);
  check_body_size(*parameters_, body, ciphertexts_);
  const std::size_t row = parameters_->data_primes() * parameters_->degree();
  std::vector<std::uint8_t> added(ciphertexts_);
  std::vector<SecureBuffer<std::uint64_t>> scratch(num_threads());
  for (SecureBuffer<std::uint64_t>& buffer : scratch) {
    buffer = SecureBuffer<std::uint64_t>(2 * row, MemoryUse::open);
  }
  try {
    parallel_for(ciphertexts_, scratch.size(), [&](std::size_t index, std::size_t worker) {
      read_ciphertext(body, index, scratch[worker].data());
      add_rows(index, factor, false, scratch[worker].data());
      added[index] = 1;
    });
  } catch (...) {
    // A malformed update must leave the sum as it was: take off what was added, on this thread and in
    // memory that is there. Should even that fail, the sum is lost and says so from now on.
    damaged_ = true;
    for (std::size_t index = 0; index < ciphertexts_; ++index) {
      if (added[index] == 0) continue;
      read_ciphertext(body, index, scratch[0].data());
      add_rows(index, factor, true, scratch[0].data());
    }
    damaged_ = false;
    throw;
  }
  weight_ += own_weight * factor;
}

void Aggregator::read_ciphertext(const BodyView& body, std::size_t index,
                                 std::uint64_t* residues) const {
  const std::size_t row = parameters_->data_primes() * parameters_->degree();
  // Both polynomials are read, and checked, before either is added.
  for (std::size_t part = 0; part < 2; ++part) {
    read_polynomial(*parameters_, body, index, part, residues + part * row);
  }
}

void Aggregator::add_rows(std::size_t index, std::uint64_t factor, bool negative,
                          const std::uint64_t* residues) {
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters_->data_primes();
  const simd::KernelTable& kernels = simd::kernels();
  std::uint64_t* sum = sums_.data() + 2 * index * primes * n;
  for (std::size_t row = 0; row < 2 * primes; ++row) {
    const Modulus& modulus = ring.modulus(row % primes);
    if (factor == 1 && !negative) {
      kernels.add(sum + row * n, residues + row * n, n, modulus);
    } else {
      const std::uint64_t positive = factor % modulus.p;
      const std::uint64_t w = negative ? simd::sub_mod(0, positive, modulus.p) : positive;
      kernels.scale_add(sum + row * n, residues + row * n, w, simd::shoup(w, modulus), n, modulus);
    }
  }
}

Aggregator::Guard::Guard(const Aggregator& aggregator) : busy_(aggregator.busy_) {
  if (aggregator.damaged_) {
    throw Error(ErrorCode::system,
                "memory ran out while a malformed update was taken off the sum, "
                "which is lost: begin a new one");
  }
  if (busy_.exchange(true)) {
    throw Error(ErrorCode::parameter, "an aggregator is in use by another thread");
  }
}

std::vector<std::uint32_t> Aggregator::write(std::uint8_t* body) const {
  const Guard guard(*this);
  const std::size_t row = parameters_->data_primes() * parameters_->degree();
  std::vector<std::uint32_t> checksums(2 * ciphertexts_);
  parallel_for(2 * ciphertexts_, num_threads(), [&](std::size_t index, std::size_t) {
    checksums[index] = write_polynomial(*parameters_, sums_.data() + index * row, index, body);
  });
  return checksums;
}

}  // namespace quancrypt
