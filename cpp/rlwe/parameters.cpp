#include "rlwe/parameters.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "base/error.h"
#include "rlwe/security.h"
#include "simd/arith.h"
#include "wire/residues.h"

namespace quancrypt {
namespace {

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorCode::parameter, message);
}

/// Bits of the product of all primes.
unsigned product_bits(const std::vector<std::uint64_t>& primes) {
  std::vector<std::uint64_t> product = {1};
  for (const std::uint64_t p : primes) {
    simd::u128 carry = 0;
    for (std::uint64_t& word : product) {
      carry += static_cast<simd::u128>(word) * p;
      word = static_cast<std::uint64_t>(carry);
      carry >>= 64;
    }
    product.push_back(static_cast<std::uint64_t>(carry));
    if (product.back() == 0) product.pop_back();
  }
  return static_cast<unsigned>(64 * (product.size() - 1)) +
         static_cast<unsigned>(std::bit_width(product.back()));
}

/// The noise of a sum and all smudging lie below the product of the smudging primes; divided by it
/// they leave at most 1, which two guard bits hold.
void check_threshold(const ParameterLiteral& p) {
  if (p.parties == 0) {
    require(p.smudging_bits == 0 && p.smudging_primes == 0, "smudging belongs to a threshold key");
    return;
  }
  require(p.encoding == Encoding::packed, "a threshold key needs packed encoding");
  require(
      p.parties >= 2 && p.parties <= kMaxParties,
      "parties is " + std::to_string(p.parties) + "; allowed: 2 to " + std::to_string(kMaxParties));
  require(p.smudging_bits >= 1 && p.smudging_bits <= kMaxSmudgingBits,
          "smudging_bits is " + std::to_string(p.smudging_bits) + "; allowed: 1 to " +
              std::to_string(kMaxSmudgingBits));
  // Primes: at least one of data, those of smudging, the special one.
  require(p.smudging_primes >= 1 && p.smudging_primes + 2U <= p.primes.size(),
          std::to_string(p.smudging_primes) + " smudging primes of " +
              std::to_string(p.primes.size()) + " leave none for data");
  require(p.noise_bound < std::uint64_t{1} << 40,
          "noise_bound is " + std::to_string(p.noise_bound) + "; allowed: below 2^40");
  const simd::u128 noise = static_cast<simd::u128>(p.max_weight) * p.noise_bound +
                           (static_cast<simd::u128>(p.parties) << p.smudging_bits);
  simd::u128 left = noise;  // ceil(noise / product of the primes so far)
  for (std::size_t k = p.primes.size() - 1 - p.smudging_primes; k + 1 < p.primes.size(); ++k) {
    left = (left + p.primes[k] - 1) / p.primes[k];
  }
  require(left <= 1, "the smudging primes do not hold the noise of a decryption");
  require(p.guard_bits == 2, std::to_string(p.guard_bits) + " guard bits; a threshold key has 2");
}

/// All that needs no tables: made first, as those of a modulus too large for its ring take 128 MiB.
void check(const ParameterLiteral& p) {
  if (max_modulus_bits(p.degree, 128) == 0 || p.primes.empty() ||
      p.primes.size() > simd::kMaxPrimes ||
      *std::min_element(p.primes.begin(), p.primes.end()) < 2) {
    return;  // the ring says what is wrong, and makes no tables
  }
  const unsigned limit = max_modulus_bits(p.degree, p.security);
  require(limit > 0, "no security limit is known for ring degree " + std::to_string(p.degree) +
                         " at " + std::to_string(p.security) + " bits; allowed: 128, 192, 256");
  const unsigned bits = product_bits(p.primes);
  require(bits <= limit, "the modulus has " + std::to_string(bits) + " bits; at ring degree " +
                             std::to_string(p.degree) + " and " + std::to_string(p.security) +
                             "-bit security at most " + std::to_string(limit) + " are allowed");
  require(p.max_weight >= 1 && p.max_weight <= 65536,
          "max_weight is " + std::to_string(p.max_weight) + "; allowed: 1 to 65536");
  check_threshold(p);
  if (p.encoding == Encoding::slots) {
    require(
        p.scale_bits >= 1 && p.scale_bits < bits && p.scale_bits <= 60,
        "scale_bits is " + std::to_string(p.scale_bits) + "; allowed: 1 to 60, below the modulus");
    return;
  }
  require(p.bits >= 2 && p.bits <= 16, "bits is " + std::to_string(p.bits) + "; allowed: 2 to 16");
  const std::uint64_t largest = p.max_weight * 2 * ((std::uint64_t{1} << (p.bits - 1)) - 1);
  require(p.field_bits >= 1 && p.field_bits <= 32 && largest >> p.field_bits == 0,
          "a field of " + std::to_string(p.field_bits) + " bits does not hold a sum of " +
              std::to_string(largest));
  require(
      p.guard_bits >= 2 && p.guard_bits <= 60 && p.noise_bound >= 1 &&
          p.noise_bound < std::uint64_t{1} << 40 &&
          (p.parties > 0 || p.max_weight * p.noise_bound < std::uint64_t{1} << (p.guard_bits - 1)),
      std::to_string(p.guard_bits) + " guard bits do not hold the noise of a sum");
}

ParameterLiteral checked(ParameterLiteral p) {
  check(p);
  return p;
}

}  // namespace

Parameters::Parameters(ParameterLiteral literal)
    : literal_(checked(std::move(literal))),
      ring_(literal_.degree, literal_.primes),
      data_primes_(std::max<std::size_t>(ring_.prime_count() - 1, 1)),
      polynomial_bytes_(quancrypt::polynomial_bytes(ring_, data_primes_)),
      join_(polynomial_bytes_) {
  if (literal_.encoding == Encoding::packed) {
    layout_.emplace(ring_, data_primes_ - literal_.smudging_primes, literal_.fields,
                    literal_.field_bits, literal_.guard_bits);
  } else {
    slot_layout_.emplace(ring_, data_primes_, literal_.scale_bits);
  }
}

std::uint64_t Parameters::noise_of_sum(std::uint64_t weight) const noexcept {
  return literal_.parties > 0 ? 1 : weight * literal_.noise_bound;
}

std::size_t Parameters::values_per_ciphertext() const {
  return layout_ ? layout_->values() : degree() / 2;
}

std::size_t Parameters::ciphertext_count(std::size_t values) const {
  const std::size_t each = values_per_ciphertext();
  return values / each + (values % each != 0 ? 1 : 0);
}

}  // namespace quancrypt
