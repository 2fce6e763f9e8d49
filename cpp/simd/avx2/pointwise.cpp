#include "simd/avx2/avx2.h"
#include "simd/avx2/real.h"

namespace quancrypt::simd::avx2 {
namespace {

bool fits(const Modulus& modulus) { return modulus.bits <= kSmallPrimeBits; }

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

void subtract_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const __m256i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 4) {
    std::int32_t four = 0;
    __builtin_memcpy(&four, e + i, sizeof(four));
    const __m256i small = _mm256_cvtepi8_epi64(_mm_cvtsi32_si128(four));
    const __m256i y = _mm256_sub_epi64(load(x + i), small);  // (-p, 2p)
    const __m256i negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), y);
    store(x + i, reduce_once(_mm256_add_epi64(y, _mm256_and_si256(negative, p)), p));
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
