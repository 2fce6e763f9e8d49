#include "packing/layout.h"

#include <string>

#include "base/error.h"
#include "simd/arith.h"

namespace quancrypt {
namespace {

constexpr std::uint32_t kMaxFieldBits = 32;
constexpr std::uint32_t kMaxGuardBits = 60;

}  // namespace

PackLayout::PackLayout(const RnsRing& ring, std::size_t primes, std::uint32_t fields,
                       std::uint32_t field_bits, std::uint32_t guard_bits)
    : moduli_(ring.moduli().begin(), ring.moduli().begin() + static_cast<std::ptrdiff_t>(primes)),
      garner_(primes * primes),
      garner_shoup_(primes * primes),
      values_(fields * ring.degree()),
      table_{} {
  std::size_t modulus_bits = 0;  // log2 Q is at most this
  for (const Modulus& modulus : moduli_) {
    if (modulus.bits > simd::kSmallPrimeBits) {
      throw Error(ErrorCode::parameter, "prime " + std::to_string(modulus.p) +
                                            " is not below 2^50, as packed encoding needs");
    }
    modulus_bits += modulus.bits;
  }
  // The exact bound, with the weight, is checked where weights are known (Parameters).
  const std::size_t used = std::size_t{fields} * field_bits + guard_bits;
  const auto limbs = static_cast<std::uint32_t>((modulus_bits + 63) / 64);
  if (fields == 0 || field_bits == 0 || field_bits > kMaxFieldBits || guard_bits < 2 ||
      guard_bits > kMaxGuardBits || used > modulus_bits || limbs > simd::kMaxLimbs) {
    throw Error(ErrorCode::parameter, std::to_string(fields) + " fields of " +
                                          std::to_string(field_bits) + " bits over " +
                                          std::to_string(guard_bits) +
                                          " guard bits do not fit a modulus of " +
                                          std::to_string(modulus_bits) + " bits");
  }
  for (const Modulus& modulus : moduli_) {
    const std::uint64_t base = power_mod(2, 64, modulus);
    std::uint64_t power = 1;
    for (std::uint32_t l = 0; l < limbs; ++l) {
      limb_power_.push_back(power);
      power = simd::multiply_mod(power, base, modulus);
    }
  }
  for (std::size_t i = 0; i < primes; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const std::uint64_t inverse = inverse_mod(moduli_[j].p % moduli_[i].p, moduli_[i]);
      garner_[i * primes + j] = inverse;
      garner_shoup_[i * primes + j] = simd::shoup(inverse, moduli_[i]);
    }
  }
  table_ = {static_cast<std::uint32_t>(primes),
            fields,
            field_bits,
            guard_bits,
            limbs,
            moduli_.data(),
            limb_power_.data(),
            garner_.data(),
            garner_shoup_.data()};
}

}  // namespace quancrypt
