// Clip, quantize to offset-binary fields, and back.
#include <cmath>

#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {
namespace {

// The build turns contraction into fused multiply-adds off (-ffp-contract=off): every set of kernels
// must round the product and the sum apart.
template <class Real>
std::size_t quantize(const Real* x, std::size_t n, Real clip, Real scale, std::int32_t q_max,
                     const std::uint32_t* dither, std::uint16_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) return i;
    const Real clipped = x[i] > clip ? clip : (x[i] < -clip ? -clip : x[i]);
    std::int32_t q = 0;
    if (dither == nullptr) {
      q = static_cast<std::int32_t>(std::nearbyint(clipped * scale));
    } else {
      const double exact = static_cast<double>(clipped) * static_cast<double>(scale);
      q = static_cast<std::int32_t>(std::floor(exact + dither[i] * 0x1p-32));
    }
    // |clipped * scale| may exceed q_max by rounding only, and floor of it by one step.
    q = q > q_max ? q_max : (q < -q_max ? -q_max : q);
    out[i] = static_cast<std::uint16_t>(q + q_max);
  }
  return n;
}

}  // namespace

std::size_t quantize_f32(const float* x, std::size_t n, float clip, float scale, std::int32_t q_max,
                         const std::uint32_t* dither, std::uint16_t* out) {
  return quantize<float>(x, n, clip, scale, q_max, dither, out);
}

std::size_t quantize_f64(const double* x, std::size_t n, double clip, double scale,
                         std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out) {
  return quantize<double>(x, n, clip, scale, q_max, dither, out);
}

void dequantize(const std::uint32_t* fields, std::size_t n, std::int64_t offset, double factor,
                float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(static_cast<double>(static_cast<std::int64_t>(fields[i]) - offset) *
                                factor);
  }
}

}  // namespace quancrypt::simd::portable
