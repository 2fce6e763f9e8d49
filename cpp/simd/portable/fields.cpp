// Fields <-> big coefficient <-> residues. A coefficient has up to kMaxLimbs 64-bit words.
#include "simd/arith.h"
#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {

void pack_fields(const std::uint16_t* fields, std::size_t n, const PackTable& table,
                 std::uint64_t* residues) {
  for (std::size_t c = 0; c < n; ++c) {
    std::uint64_t limb[kMaxLimbs + 1] = {0};  // one more: the last field may straddle into it as 0
    std::uint32_t bit = table.guard_bits;
    for (std::uint32_t f = 0; f < table.fields; ++f, bit += table.field_bits) {
      const u128 shifted = static_cast<u128>(fields[f * n + c]) << (bit & 63);
      limb[bit >> 6] |= static_cast<std::uint64_t>(shifted);
      limb[(bit >> 6) + 1] |= static_cast<std::uint64_t>(shifted >> 64);
    }
    for (std::uint32_t i = 0; i < table.primes; ++i) {
      const std::uint64_t* power = table.limb_power + std::size_t{i} * table.limbs;
      u128 sum = limb[0];  // power[0] is 1
      for (std::uint32_t l = 1; l < table.limbs; ++l) {
        sum += static_cast<u128>(limb[l]) * power[l];  // below 2^(64 + 50 + 4)
      }
      residues[i * n + c] = reduce_128(sum, table.modulus[i]);
    }
  }
}

bool unpack_fields(const std::uint64_t* residues, std::size_t n, const PackTable& table,
                   const SumLimits& limits, std::uint32_t* fields) {
  const std::uint64_t half = std::uint64_t{1} << (table.guard_bits - 1);
  const std::uint64_t guard_mask = (std::uint64_t{1} << table.guard_bits) - 1;
  const std::uint64_t field_mask = (std::uint64_t{1} << table.field_bits) - 1;
  std::uint64_t violation = 0;  // sticky: no branch on a plaintext
  for (std::size_t c = 0; c < n; ++c) {
    // Garner: mixed-radix digits d_i in [0, p_i), value = d_0 + p_0 (d_1 + p_1 (d_2 + ...)).
    // `half` is added first, so that the noise in [-half, half) becomes [0, 2^guard_bits).
    std::uint64_t digit[kMaxPrimes];
    for (std::uint32_t i = 0; i < table.primes; ++i) {
      const std::uint64_t p = table.modulus[i].p;
      const std::uint64_t* inverse = table.garner + std::size_t{i} * table.primes;
      const std::uint64_t* inverse_shoup = table.garner_shoup + std::size_t{i} * table.primes;
      std::uint64_t d = add_mod(residues[i * n + c], reduce_128(half, table.modulus[i]), p);
      for (std::uint32_t j = 0; j < i; ++j) {
        const std::uint64_t other = reduce_128(digit[j], table.modulus[i]);
        d = reduce_once(multiply_lazy(sub_mod(d, other, p), inverse[j], inverse_shoup[j], p), p);
      }
      digit[i] = d;
    }
    std::uint64_t limb[kMaxLimbs + 1] = {0};
    limb[0] = digit[table.primes - 1];
    for (std::uint32_t i = table.primes - 1; i-- > 0;) {
      u128 carry = digit[i];
      for (std::uint32_t l = 0; l < table.limbs; ++l) {
        carry += static_cast<u128>(limb[l]) * table.modulus[i].p;
        limb[l] = static_cast<std::uint64_t>(carry);
        carry >>= 64;
      }
    }
    const std::uint64_t noise = (limb[0] & guard_mask) - half;  // two's complement
    violation |= (noise + limits.noise_max) > 2 * limits.noise_max;
    std::uint32_t bit = table.guard_bits;
    for (std::uint32_t f = 0; f < table.fields; ++f, bit += table.field_bits) {
      const u128 window = static_cast<u128>(limb[(bit >> 6) + 1]) << 64 | limb[bit >> 6];
      const std::uint64_t field = static_cast<std::uint64_t>(window >> (bit & 63)) & field_mask;
      violation |= field > limits.field_max;
      fields[f * n + c] = static_cast<std::uint32_t>(field);
    }
    // Nothing may stand above the last field.
    std::uint64_t above = limb[bit >> 6] >> (bit & 63);
    for (std::uint32_t l = (bit >> 6) + 1; l < table.limbs; ++l) above |= limb[l];
    violation |= above;
  }
  return violation == 0;
}

}  // namespace quancrypt::simd::portable
