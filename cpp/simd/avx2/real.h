// Modular arithmetic in doubles on four lanes, p < 2^50 (van der Hoeven, Lecerf, Quintin: "Modular
// SIMD arithmetic in Mathemagix", ACM TOMS 2016). Included by the AVX2 files only; everything has
// internal linkage, so that no copy compiled with wide instructions is shared with other files.
//
// A product x w is h + l exactly, h = fl(x w), l by a fused multiply-add. With q the integer nearest
// to fl(x fl(w / p)), r = (h - q p) + l = x w - q p is exact: both sums are integers below 2^53.
// q is off by at most 1/2 + |x w / p| 2^-52, so |r| <= p (1/2 + |x w / p| 2^-52).
#pragma once

#include <immintrin.h>

#include "simd/kernels.h"

namespace quancrypt::simd::avx2 {
namespace {

inline constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
inline constexpr long long kBits2To52 = 0x4330000000000000;  // the double 2^52

/// p and what reductions need, in every lane.
struct Prime {
  __m256d p, inverse;

  explicit Prime(std::uint64_t value)
      : p(_mm256_set1_pd(static_cast<double>(value))),
        inverse(_mm256_set1_pd(1.0 / static_cast<double>(value))) {}
};

inline __m256i load(const std::uint64_t* x) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}
inline void store(std::uint64_t* x, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(x), v);
}
inline __m256i broadcast(std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }

/// Integers in [0, 2^52) -> the same as doubles.
inline __m256d to_real(__m256i x) {
  const __m256i magic = _mm256_set1_epi64x(kBits2To52);
  return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(x, magic)), _mm256_castsi256_pd(magic));
}

/// Integral doubles in [0, 2^52) -> integers.
inline __m256i to_integer(__m256d x) {
  const __m256i magic = _mm256_set1_epi64x(kBits2To52);
  return _mm256_xor_si256(_mm256_castpd_si256(_mm256_add_pd(x, _mm256_castsi256_pd(magic))), magic);
}

inline __m256d load_real(const std::uint64_t* x) { return to_real(load(x)); }

/// x w mod p in [-p, p] for |x w / p| <= 2^51; ratio = fl(w / p).
inline __m256d multiply(__m256d x, __m256d w, __m256d ratio, const Prime& m) {
  const __m256d h = _mm256_mul_pd(x, w);
  const __m256d l = _mm256_fmsub_pd(x, w, h);
  const __m256d q = _mm256_round_pd(_mm256_mul_pd(x, ratio), kNearest);
  return _mm256_add_pd(_mm256_fnmadd_pd(q, m.p, h), l);
}

/// a b mod p in [-p, p]; a, b in [0, p). q = fl(h / p) is off by at most 1/2 + 2^-51 a b / p <= 1.
inline __m256d multiply(__m256d a, __m256d b, const Prime& m) {
  const __m256d h = _mm256_mul_pd(a, b);
  const __m256d l = _mm256_fmsub_pd(a, b, h);
  const __m256d q = _mm256_round_pd(_mm256_mul_pd(h, m.inverse), kNearest);
  return _mm256_add_pd(_mm256_fnmadd_pd(q, m.p, h), l);
}

/// |x| < 2^53 -> the same mod p, at most slightly beyond [-p/2, p/2].
inline __m256d reduce(__m256d x, const Prime& m) {
  const __m256d q = _mm256_round_pd(_mm256_mul_pd(x, m.inverse), kNearest);
  return _mm256_fnmadd_pd(q, m.p, x);
}

/// (-p, p) -> [0, p).
inline __m256d lift(__m256d x, const Prime& m) {
  const __m256d negative = _mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ);
  return _mm256_add_pd(x, _mm256_and_pd(negative, m.p));
}

/// [-p, 2p) -> [0, p).
inline __m256d normalize(__m256d x, const Prime& m) {
  const __m256d high = _mm256_cmp_pd(x, m.p, _CMP_GE_OQ);
  x = _mm256_sub_pd(x, _mm256_and_pd(high, m.p));
  return lift(x, m);
}

/// x in [0, 2b) -> x mod b; b < 2^62.
inline __m256i reduce_once(__m256i x, __m256i b) {
  const __m256i below = _mm256_cmpgt_epi64(b, x);
  return _mm256_sub_epi64(x, _mm256_andnot_si256(below, b));
}

}  // namespace
}  // namespace quancrypt::simd::avx2
