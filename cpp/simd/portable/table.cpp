#include "simd/portable/portable.h"

namespace quancrypt::simd {

const KernelTable* portable_kernels() {
  static constexpr KernelTable table = {
      .name = "portable",
      .ntt_forward = portable::ntt_forward,
      .ntt_inverse = portable::ntt_inverse,
      .multiply_add = portable::multiply_add,
      .multiply_subtract = portable::multiply_subtract,
      .add = portable::add,
      .scale_add = portable::scale_add,
      .subtract_scale = portable::subtract_scale,
      .remainder = portable::remainder,
      .lift_small = portable::lift_small,
      .subtract_small = portable::subtract_small,
      .chacha20 = portable::chacha20,
      .sample_centred_binomial = portable::sample_centred_binomial,
      .sample_ternary = portable::sample_ternary,
      .quantize_f32 = portable::quantize_f32,
      .quantize_f64 = portable::quantize_f64,
      .pack_fields = portable::pack_fields,
      .unpack_fields = portable::unpack_fields,
      .dequantize = portable::dequantize,
      .slots_to_coefficients = portable::slots_to_coefficients,
      .coefficients_to_slots = portable::coefficients_to_slots,
      .round_to_integers = portable::round_to_integers,
      .pack_bits = portable::pack_bits,
      .unpack_bits = portable::unpack_bits,
      .add_bits = portable::add_bits,
      .find_not_below = portable::find_not_below,
      .crc32c = portable::crc32c,
  };
  return &table;
}

}  // namespace quancrypt::simd
