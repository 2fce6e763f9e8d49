// 52-bit modular arithmetic on eight lanes. Included by the AVX-512 files only; everything has
// internal linkage, so that no copy compiled with wide instructions is shared with other files.
#pragma once

#include <immintrin.h>

#include "simd/kernels.h"

namespace quancrypt::simd::avx512 {
namespace {

/// p and what reductions need, in every lane.
struct Prime {
  __m512i p, two_p, minus_p, mask;

  explicit Prime(std::uint64_t value)
      : p(_mm512_set1_epi64(static_cast<long long>(value))),
        two_p(_mm512_set1_epi64(static_cast<long long>(2 * value))),
        minus_p(_mm512_set1_epi64(static_cast<long long>((std::uint64_t{1} << 52) - value))),
        mask(_mm512_set1_epi64((1LL << 52) - 1)) {}
};

inline __m512i load(const std::uint64_t* x) { return _mm512_loadu_si512(x); }
inline void store(std::uint64_t* x, __m512i v) { _mm512_storeu_si512(x, v); }
inline __m512i broadcast(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }

/// x in [0, 2b) -> x mod b.
inline __m512i reduce_once(__m512i x, __m512i b) {
  return _mm512_min_epu64(x, _mm512_sub_epi64(x, b));
}

/// w x mod p in [0, 2p); x < 2^52, w < p, w_shoup = floor(w 2^52 / p).
inline __m512i multiply_lazy(__m512i x, __m512i w, __m512i w_shoup, const Prime& m) {
  const __m512i zero = _mm512_setzero_si512();
  const __m512i q = _mm512_madd52hi_epu64(zero, x, w_shoup);
  const __m512i low = _mm512_madd52lo_epu64(zero, x, w);
  return _mm512_and_si512(_mm512_madd52lo_epu64(low, q, m.minus_p), m.mask);
}

/// floor(w 2^52 / p) out of the table's floor(w 2^64 / p).
inline __m512i shoup52(__m512i shoup64) { return _mm512_srli_epi64(shoup64, 12); }
inline std::uint64_t shoup52(std::uint64_t shoup64) { return shoup64 >> 12; }

}  // namespace
}  // namespace quancrypt::simd::avx512
