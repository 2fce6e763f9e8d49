// Butterflies of the NTT on eight lanes, in two styles with the same members. Included by ntt.cpp only.
//
// Strict reduces one side of every butterfly; for any prime. Lazy is for p < 2^48, where 16 p fits the
// 52 bits that IFMA reads: values grow over two layers before one of four is reduced, and since the
// multipliers read 52 bits only, what stands above them is garbage until a value is masked.
#pragma once

#include "simd/avx512/modular.h"

namespace quancrypt::simd::avx512 {
namespace {

inline constexpr std::uint32_t kLazyPrimeBits = 48;

struct Twiddle {
  __m512i w, shoup;
};

struct Quad {
  __m512i a, b, c, d;
};

template <class Arithmetic>
class Strict {
 public:
  explicit Strict(std::uint64_t p) : m_(p) {}

  static __m512i shoup(__m512i shoup64) { return Arithmetic::shoup(shoup64); }

  /// [0, 2 bound) x [0, 2 bound) -> the same. `layer`: 0, 1, 2 of the last three; no matter here.
  template <int layer>
  void forward(__m512i& lo, __m512i& hi, const Twiddle& t) const {
    const __m512i u = m_.reduce(lo);
    const __m512i v = m_.multiply(hi, t.w, t.shoup);
    lo = _mm512_add_epi64(u, v);
    hi = _mm512_add_epi64(u, _mm512_sub_epi64(m_.bound, v));
  }
  /// Two layers: (a, c) and (b, d) with t1, then (a, b) with t2 and (c, d) with t3.
  void forward(Quad& q, const Twiddle& t1, const Twiddle& t2, const Twiddle& t3) const {
    forward<0>(q.a, q.c, t1);
    forward<0>(q.b, q.d, t1);
    forward<0>(q.a, q.b, t2);
    forward<0>(q.c, q.d, t3);
  }
  /// The result of the last layer -> [0, p).
  [[nodiscard]] __m512i finish(__m512i x) const { return m_.finish(x); }

  /// [0, bound) x [0, bound) -> the same.
  template <int layer>
  void inverse(__m512i& lo, __m512i& hi, const Twiddle& t) const {
    const __m512i difference = _mm512_add_epi64(lo, _mm512_sub_epi64(m_.bound, hi));
    lo = m_.reduce(_mm512_add_epi64(lo, hi));
    hi = m_.multiply(difference, t.w, t.shoup);
  }
  /// Two layers: (a, b) with t2 and (c, d) with t3, then (a, c) and (b, d) with t1.
  void inverse(Quad& q, const Twiddle& t1, const Twiddle& t2, const Twiddle& t3) const {
    inverse<0>(q.a, q.b, t2);
    inverse<0>(q.c, q.d, t3);
    inverse<0>(q.a, q.c, t1);
    inverse<0>(q.b, q.d, t1);
  }
  /// x w -> [0, p).
  [[nodiscard]] __m512i scale(__m512i x, const Twiddle& t) const {
    return m_.finish(m_.multiply(x, t.w, t.shoup));
  }

 private:
  Arithmetic m_;
};

class Lazy {
 public:
  explicit Lazy(std::uint64_t p)
      : p_(broadcast(p)),
        p2_(broadcast(2 * p)),
        p4_(broadcast(4 * p)),
        p8_(broadcast(8 * p)),
        minus_p_(broadcast((std::uint64_t{1} << 52) - p)),
        mask_(broadcast((std::uint64_t{1} << 52) - 1)),
        one_shoup_(broadcast((std::uint64_t{1} << 52) / p)) {}

  static __m512i shoup(__m512i shoup64) { return _mm512_srli_epi64(shoup64, 12); }

  /// Below 8p x 8p -> below 8p x 8p. Layer 0 reduces lo to below 4p and gives sums below 6p, layer 1
  /// below 8p, layer 2 below 10p.
  template <int layer>
  void forward(__m512i& lo, __m512i& hi, const Twiddle& t) const {
    const __m512i u = layer == 0 ? reduce_once(clean(lo), p4_) : lo;
    const __m512i v = multiply(hi, t);
    lo = _mm512_add_epi64(u, v);
    hi = _mm512_add_epi64(u, _mm512_sub_epi64(p2_, v));
  }
  void forward(Quad& q, const Twiddle& t1, const Twiddle& t2, const Twiddle& t3) const {
    const __m512i a = reduce_once(clean(q.a), p4_);  // below 4p
    const __m512i c = multiply(q.c, t1);
    const __m512i d = multiply(q.d, t1);
    const __m512i a1 = _mm512_add_epi64(a, c);  // below 6p
    const __m512i c1 = _mm512_add_epi64(a, _mm512_sub_epi64(p2_, c));
    const __m512i b1 = multiply(_mm512_add_epi64(q.b, d), t2);  // of below 10p
    const __m512i d1 = multiply(_mm512_add_epi64(q.b, _mm512_sub_epi64(p2_, d)), t3);
    q.a = _mm512_add_epi64(a1, b1);  // below 8p
    q.b = _mm512_add_epi64(a1, _mm512_sub_epi64(p2_, b1));
    q.c = _mm512_add_epi64(c1, d1);
    q.d = _mm512_add_epi64(c1, _mm512_sub_epi64(p2_, d1));
  }
  /// Any x < 2^52 -> [0, p): Shoup's method with w = 1.
  [[nodiscard]] __m512i finish(__m512i x) const {
    const __m512i q = _mm512_madd52hi_epu64(_mm512_setzero_si512(), x, one_shoup_);
    return reduce_once(clean(_mm512_madd52lo_epu64(x, q, minus_p_)), p_);
  }

  /// First layers, from below p: layer 0 gives sums below 2p, layer 1 below 4p; layer 2 and a layer of
  /// its own reduce sums from below 8p to below 4p. Products are below 2p.
  template <int layer>
  void inverse(__m512i& lo, __m512i& hi, const Twiddle& t) const {
    const __m512i difference = _mm512_add_epi64(lo, _mm512_sub_epi64(p4_, hi));
    lo = _mm512_add_epi64(lo, hi);
    if (layer == 2) lo = reduce_once(clean(lo), p4_);
    hi = multiply(difference, t);
  }
  /// Below 4p -> below 4p.
  void inverse(Quad& q, const Twiddle& t1, const Twiddle& t2, const Twiddle& t3) const {
    const __m512i a = _mm512_add_epi64(q.a, q.b);  // below 8p
    const __m512i b = multiply(_mm512_add_epi64(q.a, _mm512_sub_epi64(p4_, q.b)), t2);
    const __m512i c = _mm512_add_epi64(q.c, q.d);
    const __m512i d = multiply(_mm512_add_epi64(q.c, _mm512_sub_epi64(p4_, q.d)), t3);
    q.a = reduce_once(reduce_once(clean(_mm512_add_epi64(a, c)), p8_), p4_);  // from below 16p
    q.b = _mm512_add_epi64(b, d);
    q.c = multiply(_mm512_add_epi64(a, _mm512_sub_epi64(p8_, c)), t1);  // of below 16p < 2^52
    q.d = multiply(_mm512_add_epi64(b, _mm512_sub_epi64(p2_, d)), t1);
  }
  [[nodiscard]] __m512i scale(__m512i x, const Twiddle& t) const {
    return reduce_once(clean(multiply(x, t)), p_);
  }

 private:
  [[nodiscard]] __m512i clean(__m512i x) const { return _mm512_and_si512(x, mask_); }

  /// x w mod p in [0, 2p) in the low 52 bits; the low 52 bits of x are below 2^52.
  [[nodiscard]] __m512i multiply(__m512i x, const Twiddle& t) const {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i q = _mm512_madd52hi_epu64(zero, x, t.shoup);
    const __m512i low = _mm512_madd52lo_epu64(zero, x, t.w);
    return _mm512_madd52lo_epu64(low, q, minus_p_);
  }

  __m512i p_, p2_, p4_, p8_, minus_p_, mask_, one_shoup_;
};

}  // namespace
}  // namespace quancrypt::simd::avx512
