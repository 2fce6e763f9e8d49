#include "simd/avx2/avx2.h"
#include "simd/sse42/sse42.h"

namespace quancrypt::simd {

const KernelTable* avx2_kernels() {
  static constexpr KernelTable table = {
      .name = "avx2",
      .ntt_forward = avx2::ntt_forward,
      .ntt_inverse = avx2::ntt_inverse,
      .multiply_add = avx2::multiply_add,
      .multiply_subtract = avx2::multiply_subtract,
      .add = avx2::add,
      .scale_add = avx2::scale_add,
      .subtract_scale = avx2::subtract_scale,
      .remainder = avx2::remainder,
      .lift_small = avx2::lift_small,
      .subtract_small = avx2::subtract_small,
      .chacha20 = avx2::chacha20,
      .sample_centred_binomial = avx2::sample_centred_binomial,
      .sample_ternary = avx2::sample_ternary,
      .quantize_f32 = avx2::quantize_f32,
      .quantize_f64 = avx2::quantize_f64,
      .pack_fields = avx2::pack_fields,
      .unpack_fields = avx2::unpack_fields,
      .dequantize = avx2::dequantize,
      .slots_to_coefficients = avx2::slots_to_coefficients,
      .coefficients_to_slots = avx2::coefficients_to_slots,
      .round_to_integers = avx2::round_to_integers,
      .pack_bits = avx2::pack_bits,
      .unpack_bits = avx2::unpack_bits,
      .add_bits = avx2::add_bits,
      .find_not_below = avx2::find_not_below,
      .crc32c = sse42::crc32c,
  };
  return &table;
}

}  // namespace quancrypt::simd
