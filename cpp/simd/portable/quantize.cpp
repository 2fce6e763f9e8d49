// Clip, quantize to offset-binary fields, and back.
#include <cmath>

#include "simd/constant_time.h"
#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {
namespace {

// Numbers that bring a sum below 2^22 (float) or 2^51 (double) to the precision of whole numbers, ties
// to even. std::nearbyint and std::floor branch on the value where the CPU has no instruction for them.
constexpr float whole_number(float x) { return (x + 0x1.8p23F) - 0x1.8p23F; }
constexpr double whole_number(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

// No branch on a value, but for the first that is NaN or infinite: each choice below is one that compilers
// turn into a minimum, a maximum or a comparison's result.
//
// The build turns contraction into fused multiply-adds off (-ffp-contract=off): every set of kernels
// must round the product and the sum apart.
template <class Real>
std::size_t quantize(const Real* x, std::size_t n, Real clip, Real scale, std::int32_t q_max,
                     const std::uint32_t* dither, std::uint16_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const bool bad = !std::isfinite(x[i]);
    QUANCRYPT_DECLASSIFY(not_finite, &bad, sizeof(bad));
    if (bad) return i;
    const Real above = x[i] < -clip ? -clip : x[i];
    const Real clipped = above > clip ? clip : above;
    std::int32_t q = 0;
    if (dither == nullptr) {
      q = static_cast<std::int32_t>(whole_number(clipped * scale));
    } else {
      const double exact = static_cast<double>(clipped) * static_cast<double>(scale);
      const double y = exact + dither[i] * 0x1p-32;
      q = static_cast<std::int32_t>(y);
      q -= static_cast<std::int32_t>(static_cast<double>(q) > y);  // floor
    }
    // |clipped * scale| may exceed q_max by rounding only, and floor of it by one step.
    q = q < -q_max ? -q_max : q;
    q = q > q_max ? q_max : q;
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
