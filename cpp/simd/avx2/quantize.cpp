// Same roundings as the portable kernels: product and sum apart (-ffp-contract=off), ties to even.
#include <immintrin.h>

#include "simd/avx2/avx2.h"
#include "simd/constant_time.h"

namespace quancrypt::simd::avx2 {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// Unsigned 32-bit integers as doubles: in the low bits of 2^52, which is taken off again.
inline __m256d unsigned_to_double(__m128i x) {
  const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
  return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(_mm256_cvtepu32_epi64(x), magic)),
                       _mm256_castsi256_pd(magic));
}

/// floor(y + dither / 2^32) of four doubles, as 32-bit integers.
inline __m128i round_stochastic(__m256d y, __m128i dither) {
  const __m256d u = _mm256_mul_pd(unsigned_to_double(dither), _mm256_set1_pd(0x1p-32));
  return _mm256_cvttpd_epi32(_mm256_round_pd(_mm256_add_pd(y, u), kDown));
}

inline __m128i load4(const std::uint32_t* x) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
}

}  // namespace

std::size_t quantize_f32(const float* x, std::size_t n, float clip, float scale, std::int32_t q_max,
                         const std::uint32_t* dither, std::uint16_t* out) {
  const __m256 high = _mm256_set1_ps(clip);
  const __m256 low = _mm256_set1_ps(-clip);
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256d factor_pd = _mm256_set1_pd(static_cast<double>(scale));
  const __m256i top = _mm256_set1_epi32(q_max);
  const __m256i bottom = _mm256_set1_epi32(-q_max);
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  const __m256i largest = _mm256_set1_epi32(0x7F7FFFFF);  // the largest finite float
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 value = _mm256_loadu_ps(x + i);
    const __m256i bad =
        _mm256_cmpgt_epi32(_mm256_and_si256(_mm256_castps_si256(value), magnitude), largest);
    const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(bad));
    QUANCRYPT_DECLASSIFY(not_finite, &mask, sizeof(mask));
    if (mask != 0) return i + static_cast<std::size_t>(__builtin_ctz(static_cast<unsigned>(mask)));
    const __m256 clipped = _mm256_max_ps(_mm256_min_ps(value, high), low);
    __m256i q;
    if (dither == nullptr) {
      q = _mm256_cvttps_epi32(_mm256_round_ps(_mm256_mul_ps(clipped, factor), kNearest));
    } else {
      const __m256d first = _mm256_cvtps_pd(_mm256_castps256_ps128(clipped));
      const __m256d second = _mm256_cvtps_pd(_mm256_extractf128_ps(clipped, 1));
      q = _mm256_set_m128i(
          round_stochastic(_mm256_mul_pd(second, factor_pd), load4(dither + i + 4)),
          round_stochastic(_mm256_mul_pd(first, factor_pd), load4(dither + i)));
    }
    q = _mm256_add_epi32(_mm256_max_epi32(_mm256_min_epi32(q, top), bottom), top);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm_packus_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
  }
  return i + portable_kernels()->quantize_f32(x + i, n - i, clip, scale, q_max,
                                              dither == nullptr ? nullptr : dither + i, out + i);
}

std::size_t quantize_f64(const double* x, std::size_t n, double clip, double scale,
                         std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out) {
  const __m256d high = _mm256_set1_pd(clip);
  const __m256d low = _mm256_set1_pd(-clip);
  const __m256d factor = _mm256_set1_pd(scale);
  const __m128i top = _mm_set1_epi32(q_max);
  const __m128i bottom = _mm_set1_epi32(-q_max);
  const __m256i magnitude = _mm256_set1_epi64x(0x7FFFFFFFFFFFFFFF);
  const __m256i largest = _mm256_set1_epi64x(0x7FEFFFFFFFFFFFFF);  // the largest finite double
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m256d value = _mm256_loadu_pd(x + i);
    const __m256i bad =
        _mm256_cmpgt_epi64(_mm256_and_si256(_mm256_castpd_si256(value), magnitude), largest);
    const int mask = _mm256_movemask_pd(_mm256_castsi256_pd(bad));
    QUANCRYPT_DECLASSIFY(not_finite, &mask, sizeof(mask));
    if (mask != 0) return i + static_cast<std::size_t>(__builtin_ctz(static_cast<unsigned>(mask)));
    const __m256d y = _mm256_mul_pd(_mm256_max_pd(_mm256_min_pd(value, high), low), factor);
    __m128i q = dither == nullptr ? _mm256_cvttpd_epi32(_mm256_round_pd(y, kNearest))
                                  : round_stochastic(y, load4(dither + i));
    q = _mm_add_epi32(_mm_max_epi32(_mm_min_epi32(q, top), bottom), top);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm_packus_epi32(q, q));
  }
  return i + portable_kernels()->quantize_f64(x + i, n - i, clip, scale, q_max,
                                              dither == nullptr ? nullptr : dither + i, out + i);
}

void dequantize(const std::uint32_t* fields, std::size_t n, std::int64_t offset, double factor,
                float* out) {
  const __m256d shift = _mm256_set1_pd(static_cast<double>(offset));  // below 2^32: exact
  const __m256d scale = _mm256_set1_pd(factor);
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m256d q = _mm256_sub_pd(unsigned_to_double(load4(fields + i)), shift);
    _mm_storeu_ps(out + i, _mm256_cvtpd_ps(_mm256_mul_pd(q, scale)));
  }
  portable_kernels()->dequantize(fields + i, n - i, offset, factor, out + i);
}

}  // namespace quancrypt::simd::avx2
