#include "simd/avx512/avx512.h"
#include "simd/sse42/sse42.h"

namespace quancrypt::simd {

const KernelTable* avx512_kernels() {
  static constexpr KernelTable table = {
      .name = "avx512",
      .ntt_forward = avx512::ntt_forward,
      .ntt_inverse = avx512::ntt_inverse,
      .multiply_add = avx512::multiply_add,
      .multiply_subtract = avx512::multiply_subtract,
      .add = avx512::add,
      .scale_add = avx512::scale_add,
      .subtract_scale = avx512::subtract_scale,
      .remainder = avx512::remainder,
      .lift_small = avx512::lift_small,
      .subtract_small = avx512::subtract_small,
      .chacha20 = avx512::chacha20,
      .sample_centred_binomial = avx512::sample_centred_binomial,
      .sample_ternary = avx512::sample_ternary,
      .quantize_f32 = avx512::quantize_f32,
      .quantize_f64 = avx512::quantize_f64,
      .pack_fields = avx512::pack_fields,
      .unpack_fields = avx512::unpack_fields,
      .dequantize = avx512::dequantize,
      .slots_to_coefficients = avx512::slots_to_coefficients,
      .coefficients_to_slots = avx512::coefficients_to_slots,
      .round_to_integers = avx512::round_to_integers,
      .pack_bits = avx512::pack_bits,
      .unpack_bits = avx512::unpack_bits,
      .add_bits = avx512::add_bits,
      .find_not_below = avx512::find_not_below,
      .crc32c = sse42::crc32c,
  };
  return &table;
}

}  // namespace quancrypt::simd
