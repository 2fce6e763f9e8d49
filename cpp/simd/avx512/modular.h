// Modular arithmetic on eight lanes. Included by the AVX-512 files only; everything has internal
// linkage, so that no copy compiled with wide instructions is shared with other files.
//
// Two classes with the same members: Small for p < 2^50 in the 52-bit multipliers of IFMA, Wide for
// p < 2^60 in 64-bit words. A product by a constant w takes shoup(floor(w 2^64 / p)) along (Harvey
// 2014, arXiv 1205.2926) and comes out in [0, bound).
#pragma once

#include <immintrin.h>

#include "simd/kernels.h"

namespace quancrypt::simd::avx512 {
namespace {

inline __m512i load(const std::uint64_t* x) { return _mm512_loadu_si512(x); }
inline void store(std::uint64_t* x, __m512i v) { _mm512_storeu_si512(x, v); }
inline __m512i broadcast(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }

/// x in [0, 2b) -> x mod b.
inline __m512i reduce_once(__m512i x, __m512i b) {
  return _mm512_min_epu64(x, _mm512_sub_epi64(x, b));
}

/// floor(w 2^52 / p) out of the table's floor(w 2^64 / p).
inline std::uint64_t shoup52(std::uint64_t shoup64) { return shoup64 >> 12; }

class Small {
 public:
  __m512i p, bound, minus_p, mask;  // bound = 2p

  explicit Small(std::uint64_t value)
      : p(broadcast(value)),
        bound(broadcast(2 * value)),
        minus_p(broadcast((std::uint64_t{1} << 52) - value)),
        mask(broadcast((std::uint64_t{1} << 52) - 1)) {}

  static __m512i shoup(__m512i shoup64) { return _mm512_srli_epi64(shoup64, 12); }

  /// w x mod p in [0, 2p); x < 2^52, w < p.
  [[nodiscard]] __m512i multiply(__m512i x, __m512i w, __m512i w_shoup) const {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i q = _mm512_madd52hi_epu64(zero, x, w_shoup);
    const __m512i low = _mm512_madd52lo_epu64(zero, x, w);
    return _mm512_and_si512(_mm512_madd52lo_epu64(low, q, minus_p), mask);
  }
  /// [0, 2 bound) -> [0, bound).
  [[nodiscard]] __m512i reduce(__m512i x) const { return reduce_once(x, bound); }
  /// [0, 2 bound) -> [0, p).
  [[nodiscard]] __m512i finish(__m512i x) const { return reduce_once(reduce(x), p); }
};

class Wide {
 public:
  __m512i p, two_p, bound;  // bound = 4p < 2^62

  explicit Wide(std::uint64_t value)
      : p(broadcast(value)), two_p(broadcast(2 * value)), bound(broadcast(4 * value)) {}

  static __m512i shoup(__m512i shoup64) { return shoup64; }

  /// floor(x y / 2^64) or up to 2 less: the product of the low halves is left out.
  static __m512i multiply_high(__m512i x, __m512i y) {
    const __m512i x_high = _mm512_srli_epi64(x, 32);
    const __m512i y_high = _mm512_srli_epi64(y, 32);
    const __m512i one = _mm512_srli_epi64(_mm512_mul_epu32(x_high, y), 32);
    const __m512i two = _mm512_srli_epi64(_mm512_mul_epu32(x, y_high), 32);
    return _mm512_add_epi64(_mm512_mul_epu32(x_high, y_high), _mm512_add_epi64(one, two));
  }
  /// w x mod p in [0, 4p); any x, w < p: Shoup's quotient may be 2 too small.
  [[nodiscard]] __m512i multiply(__m512i x, __m512i w, __m512i w_shoup) const {
    const __m512i q = multiply_high(x, w_shoup);
    return _mm512_sub_epi64(_mm512_mullo_epi64(x, w), _mm512_mullo_epi64(q, p));
  }
  [[nodiscard]] __m512i reduce(__m512i x) const { return reduce_once(x, bound); }
  [[nodiscard]] __m512i finish(__m512i x) const {
    return reduce_once(reduce_once(reduce(x), two_p), p);
  }
};

/// Does p fit Small?
inline bool is_small(const Modulus& modulus) { return modulus.bits <= kSmallPrimeBits; }

/// floor(2^(128 - by) / p) out of floor(2^128 / p), for 0 < by < 128 and a result below 2^64.
inline std::uint64_t ratio_shifted(const Modulus& m, std::uint32_t by) {
  return by >= 64 ? m.ratio_hi >> (by - 64) : m.ratio_hi << (64 - by) | m.ratio_lo >> by;
}

}  // namespace
}  // namespace quancrypt::simd::avx512
