#include "simd/avx512/avx512.h"
#include "simd/avx512/ifma.h"

namespace quancrypt::simd::avx512 {
namespace {

/// Products modulo p by Barrett's method: with k = bits of p and mu = floor(2^(51 + k) / p) the
/// quotient floor(floor(x / 2^(k-1)) mu / 2^52) is at most 2 too small.
struct Barrett {
  Prime m;
  __m512i mu, right, left;

  explicit Barrett(const Modulus& modulus)
      : m(modulus.p),
        // ratio = floor(2^128 / p): its top bits are floor(2^(51 + k) / p).
        mu(broadcast(shift_right(modulus.ratio_hi, modulus.ratio_lo, 77 - modulus.bits))),
        right(broadcast(modulus.bits - 1)),
        left(broadcast(52 - (modulus.bits - 1))) {}

  /// a b mod p in [0, 3p); a, b in [0, p).
  [[nodiscard]] __m512i multiply(__m512i a, __m512i b) const {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i low = _mm512_madd52lo_epu64(zero, a, b);
    const __m512i high = _mm512_madd52hi_epu64(zero, a, b);
    const __m512i top =
        _mm512_or_si512(_mm512_srlv_epi64(low, right), _mm512_sllv_epi64(high, left));
    const __m512i q = _mm512_madd52hi_epu64(zero, top, mu);
    return _mm512_and_si512(_mm512_madd52lo_epu64(low, q, m.minus_p), m.mask);
  }

  static std::uint64_t shift_right(std::uint64_t high, std::uint64_t low, std::uint32_t by) {
    return by >= 64 ? high >> (by - 64) : high << (64 - by) | low >> by;
  }
};

bool fits(const Modulus& modulus) { return modulus.bits <= kSmallPrimeBits; }

}  // namespace

void multiply_add(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                  const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->multiply_add(out, a, b, c, n, modulus);
    return;
  }
  const Barrett barrett(modulus);
  const Prime& m = barrett.m;
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i r = _mm512_add_epi64(barrett.multiply(load(a + i), load(b + i)), load(c + i));
    store(out + i, reduce_once(reduce_once(r, m.two_p), m.p));  // r in [0, 4p)
  }
}

void multiply_subtract(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                       const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->multiply_subtract(out, a, b, c, n, modulus);
    return;
  }
  const Barrett barrett(modulus);
  const Prime& m = barrett.m;
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i r = reduce_once(barrett.multiply(load(a + i), load(b + i)), m.two_p);  // [0, 2p)
    const __m512i d = _mm512_add_epi64(load(c + i), _mm512_sub_epi64(m.two_p, r));       // (0, 3p)
    store(out + i, reduce_once(reduce_once(d, m.two_p), m.p));
  }
}

void add(std::uint64_t* sum, const std::uint64_t* x, std::size_t n, const Modulus& modulus) {
  const __m512i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 8) {
    store(sum + i, reduce_once(_mm512_add_epi64(load(sum + i), load(x + i)), p));
  }
}

void scale_add(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
               std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  if (!fits(modulus)) {
    portable_kernels()->scale_add(sum, x, weight, weight_shoup, n, modulus);
    return;
  }
  const Prime m(modulus.p);
  const __m512i w = broadcast(weight);
  const __m512i shoup = broadcast(shoup52(weight_shoup));
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i r = _mm512_add_epi64(multiply_lazy(load(x + i), w, shoup, m), load(sum + i));
    store(sum + i, reduce_once(reduce_once(r, m.two_p), m.p));  // r in [0, 3p)
  }
}

void subtract_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const __m512i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i small =
        _mm512_cvtepi8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(e + i)));
    const __m512i y = _mm512_sub_epi64(load(x + i), small);  // (-p, 2p), negative is huge
    store(x + i, reduce_once(_mm512_min_epu64(y, _mm512_add_epi64(y, p)), p));
  }
}

std::size_t find_not_below(const std::uint64_t* x, std::size_t n, std::uint64_t bound) {
  const __m512i limit = broadcast(bound);
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __mmask8 bad = _mm512_cmpge_epu64_mask(load(x + i), limit);
    if (bad != 0) return i + static_cast<std::size_t>(__builtin_ctz(bad));
  }
  for (; i < n; ++i) {
    if (x[i] >= bound) return i;
  }
  return n;
}

}  // namespace quancrypt::simd::avx512
