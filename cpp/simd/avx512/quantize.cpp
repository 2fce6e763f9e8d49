// Same roundings as the portable kernels: product and sum apart (-ffp-contract=off), ties to even.
#include <immintrin.h>

#include "simd/avx512/avx512.h"
#include "simd/constant_time.h"

namespace quancrypt::simd::avx512 {
namespace {

constexpr int kNanOrInfinity = 0x01 | 0x08 | 0x10 | 0x80;  // quiet NaN, +inf, -inf, signalling NaN
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// floor(y + dither / 2^32) of eight doubles, as 32-bit integers.
inline __m256i round_stochastic(__m512d y, __m256i dither) {
  const __m512d u = _mm512_mul_pd(_mm512_cvtepu32_pd(dither), _mm512_set1_pd(0x1p-32));
  return _mm512_cvt_roundpd_epi32(_mm512_add_pd(y, u), kDown);
}

}  // namespace

std::size_t quantize_f32(const float* x, std::size_t n, float clip, float scale, std::int32_t q_max,
                         const std::uint32_t* dither, std::uint16_t* out) {
  const __m512 high = _mm512_set1_ps(clip);
  const __m512 low = _mm512_set1_ps(-clip);
  const __m512 factor = _mm512_set1_ps(scale);
  const __m512d factor_pd = _mm512_set1_pd(static_cast<double>(scale));
  const __m512i top = _mm512_set1_epi32(q_max);
  const __m512i bottom = _mm512_set1_epi32(-q_max);
  for (std::size_t i = 0; i < n; i += 16) {
    const std::size_t left = n - i < 16 ? n - i : 16;
    const auto used = static_cast<__mmask16>((1U << left) - 1);
    const __m512 value = _mm512_maskz_loadu_ps(used, x + i);
    const __mmask16 bad = _mm512_fpclass_ps_mask(value, kNanOrInfinity);
    QUANCRYPT_DECLASSIFY(not_finite, &bad, sizeof(bad));
    if (bad != 0) return i + static_cast<std::size_t>(__builtin_ctz(bad));
    const __m512 clipped = _mm512_max_ps(_mm512_min_ps(value, high), low);
    __m512i q;
    if (dither == nullptr) {
      q = _mm512_cvt_roundps_epi32(_mm512_mul_ps(clipped, factor), kNearest);
    } else {
      const __m512i random = _mm512_maskz_loadu_epi32(used, dither + i);
      const __m512d first = _mm512_cvtps_pd(_mm512_castps512_ps256(clipped));
      const __m512d second = _mm512_cvtps_pd(_mm512_extractf32x8_ps(clipped, 1));
      q = _mm512_inserti32x8(
          _mm512_castsi256_si512(
              round_stochastic(_mm512_mul_pd(first, factor_pd), _mm512_castsi512_si256(random))),
          round_stochastic(_mm512_mul_pd(second, factor_pd), _mm512_extracti32x8_epi32(random, 1)),
          1);
    }
    q = _mm512_max_epi32(_mm512_min_epi32(q, top), bottom);
    _mm256_mask_storeu_epi16(out + i, used, _mm512_cvtepi32_epi16(_mm512_add_epi32(q, top)));
  }
  return n;
}

std::size_t quantize_f64(const double* x, std::size_t n, double clip, double scale,
                         std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out) {
  const __m512d high = _mm512_set1_pd(clip);
  const __m512d low = _mm512_set1_pd(-clip);
  const __m512d factor = _mm512_set1_pd(scale);
  const __m256i top = _mm256_set1_epi32(q_max);
  const __m256i bottom = _mm256_set1_epi32(-q_max);
  for (std::size_t i = 0; i < n; i += 8) {
    const std::size_t left = n - i < 8 ? n - i : 8;
    const auto used = static_cast<__mmask8>((1U << left) - 1);
    const __m512d value = _mm512_maskz_loadu_pd(used, x + i);
    const __mmask8 bad = _mm512_fpclass_pd_mask(value, kNanOrInfinity);
    QUANCRYPT_DECLASSIFY(not_finite, &bad, sizeof(bad));
    if (bad != 0) return i + static_cast<std::size_t>(__builtin_ctz(bad));
    const __m512d y = _mm512_mul_pd(_mm512_max_pd(_mm512_min_pd(value, high), low), factor);
    __m256i q = dither == nullptr ? _mm512_cvt_roundpd_epi32(y, kNearest)
                                  : round_stochastic(y, _mm256_maskz_loadu_epi32(used, dither + i));
    q = _mm256_max_epi32(_mm256_min_epi32(q, top), bottom);
    _mm_mask_storeu_epi16(out + i, used, _mm256_cvtepi32_epi16(_mm256_add_epi32(q, top)));
  }
  return n;
}

void dequantize(const std::uint32_t* fields, std::size_t n, std::int64_t offset, double factor,
                float* out) {
  const __m512i shift = _mm512_set1_epi64(offset);
  const __m512d scale = _mm512_set1_pd(factor);
  for (std::size_t i = 0; i < n; i += 8) {
    const std::size_t left = n - i < 8 ? n - i : 8;
    const auto used = static_cast<__mmask8>((1U << left) - 1);
    const __m512i value = _mm512_cvtepu32_epi64(_mm256_maskz_loadu_epi32(used, fields + i));
    const __m512d q = _mm512_cvtepi64_pd(_mm512_sub_epi64(value, shift));
    _mm256_mask_storeu_ps(out + i, used, _mm512_cvtpd_ps(_mm512_mul_pd(q, scale)));
  }
}

}  // namespace quancrypt::simd::avx512
