#include "simd/avx2/avx2.h"
#include "simd/avx2/real.h"

namespace quancrypt::simd::avx2 {
namespace {

bool fits(const Modulus& modulus) { return modulus.bits <= kSmallPrimeBits; }

inline __m256i load_small(const std::int8_t* e) {
  std::int32_t four = 0;
  __builtin_memcpy(&four, e, sizeof(four));
  return _mm256_cvtepi8_epi64(_mm_cvtsi32_si128(four));
}

/// [-p, p) -> [0, p).
inline __m256i lift_integer(__m256i x, __m256i p) {
  const __m256i negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), x);
  return _mm256_add_epi64(x, _mm256_and_si256(negative, p));
}

}  // namespace

void multiply_add(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                  const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->multiply_add(out, a, b, c, n, modulus);
    return;
  }
  const Prime m(modulus.p);
  for (std::size_t i = 0; i < n; i += 4) {
    const __m256d product = multiply(load_real(a + i), load_real(b + i), m);  // [-p, p]
    const __m256d sum = _mm256_add_pd(product, load_real(c + i));             // [-p, 2p)
    store(out + i, to_integer(normalize(sum, m)));
  }
}

void multiply_subtract(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                       const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->multiply_subtract(out, a, b, c, n, modulus);
    return;
  }
  const Prime m(modulus.p);
  for (std::size_t i = 0; i < n; i += 4) {
    const __m256d product = multiply(load_real(a + i), load_real(b + i), m);  // [-p, p]
    const __m256d difference = _mm256_sub_pd(load_real(c + i), product);      // [-p, 2p)
    store(out + i, to_integer(normalize(difference, m)));
  }
}

void add(std::uint64_t* sum, const std::uint64_t* x, std::size_t n, const Modulus& modulus) {
  const __m256i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 4) {
    store(sum + i, reduce_once(_mm256_add_epi64(load(sum + i), load(x + i)), p));
  }
}

void scale_add(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
               std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->scale_add(sum, x, weight, weight_shoup, n, modulus);
    return;
  }
  const Prime m(modulus.p);
  const __m256d w = _mm256_set1_pd(static_cast<double>(weight));
  for (std::size_t i = 0; i < n; i += 4) {
    const __m256d product = multiply(load_real(x + i), w, m);          // [-p, p]
    const __m256d total = _mm256_add_pd(product, load_real(sum + i));  // [-p, 2p)
    store(sum + i, to_integer(normalize(total, m)));
  }
}

void subtract_scale(std::uint64_t* x, const std::uint64_t* y, std::uint64_t weight,
                    std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->subtract_scale(x, y, weight, weight_shoup, n, modulus);
    return;
  }
  const Prime m(modulus.p);
  const __m256d w = _mm256_set1_pd(static_cast<double>(weight));
  for (std::size_t i = 0; i < n; i += 4) {
    const __m256d difference = _mm256_sub_pd(load_real(x + i), load_real(y + i));  // (-p, p)
    store(x + i, to_integer(normalize(multiply(difference, w, m), m)));
  }
}

void remainder(std::uint64_t* out, const std::int64_t* x, std::uint64_t offset, std::size_t n,
               const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->remainder(out, x, offset, n, modulus);
    return;
  }
  // |x| = high 2^30 + low, high < 2^33, low < 2^30.
  const Prime m(modulus.p);
  const __m256d power = _mm256_set1_pd(static_cast<double>((std::uint64_t{1} << 30) % modulus.p));
  const __m256d shift = _mm256_set1_pd(static_cast<double>(offset));
  const __m256i low30 = broadcast((1U << 30) - 1);
  for (std::size_t i = 0; i < n; i += 4) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    const __m256i sign = _mm256_cmpgt_epi64(_mm256_setzero_si256(), value);
    const __m256i magnitude = _mm256_sub_epi64(_mm256_xor_si256(value, sign), sign);
    const __m256d high = to_real(_mm256_srli_epi64(magnitude, 30));
    const __m256d low = to_real(_mm256_and_si256(magnitude, low30));
    // |product| <= p, |r| < p + 2^30, |sum| < 2p + 2^30 < 2^52.
    const __m256d r = _mm256_add_pd(multiply(high, power, m), low);
    const __m256d negative = _mm256_and_pd(_mm256_castsi256_pd(sign), _mm256_set1_pd(-0.0));
    const __m256d sum = _mm256_sub_pd(_mm256_xor_pd(r, negative), shift);
    store(out + i, to_integer(lift(reduce(sum, m), m)));
  }
}

void lift_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const __m256i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 4) store(x + i, lift_integer(load_small(e + i), p));
}

void subtract_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const __m256i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 4) {
    const __m256i y = _mm256_sub_epi64(load(x + i), load_small(e + i));  // (-p, 2p)
    store(x + i, reduce_once(lift_integer(y, p), p));
  }
}

std::size_t find_not_below(const std::uint64_t* x, std::size_t n, std::uint64_t bound) {
  // Signed comparisons: shift both sides by 2^63.
  const __m256i sign = broadcast(std::uint64_t{1} << 63);
  const __m256i limit = _mm256_xor_si256(broadcast(bound), sign);
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m256i below = _mm256_cmpgt_epi64(limit, _mm256_xor_si256(load(x + i), sign));
    const int mask = _mm256_movemask_pd(_mm256_castsi256_pd(below));
    if (mask != 0xF)
      return i + static_cast<std::size_t>(__builtin_ctz(~static_cast<unsigned>(mask)));
  }
  for (; i < n; ++i) {
    if (x[i] >= bound) return i;
  }
  return n;
}

}  // namespace quancrypt::simd::avx2
