#include "simd/avx512/avx512.h"
#include "simd/avx512/modular.h"

namespace quancrypt::simd::avx512 {
namespace {

/// Products modulo p < 2^50 by Barrett's method: with k = bits of p and mu = floor(2^(51 + k) / p) the
/// quotient floor(floor(x / 2^(k-1)) mu / 2^52) is at most 2 too small.
struct SmallBarrett {
  Small m;
  __m512i mu, right, left;

  explicit SmallBarrett(const Modulus& modulus)
      : m(modulus.p),
        mu(broadcast(ratio_shifted(modulus, 77 - modulus.bits))),
        right(broadcast(modulus.bits - 1)),
        left(broadcast(52 - (modulus.bits - 1))) {}

  /// a b mod p in [0, 3p); a, b in [0, p).
  [[nodiscard]] __m512i lazy(__m512i a, __m512i b) const {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i low = _mm512_madd52lo_epu64(zero, a, b);
    const __m512i high = _mm512_madd52hi_epu64(zero, a, b);
    const __m512i top =
        _mm512_or_si512(_mm512_srlv_epi64(low, right), _mm512_sllv_epi64(high, left));
    const __m512i q = _mm512_madd52hi_epu64(zero, top, mu);
    return _mm512_and_si512(_mm512_madd52lo_epu64(low, q, m.minus_p), m.mask);
  }
  /// a b + c mod p in [0, p); a, b, c in [0, p): lazy + c below 4p.
  [[nodiscard]] __m512i multiply_add(__m512i a, __m512i b, __m512i c) const {
    return m.finish(_mm512_add_epi64(lazy(a, b), c));
  }
  /// c - a b mod p in [0, p).
  [[nodiscard]] __m512i multiply_subtract(__m512i a, __m512i b, __m512i c) const {
    const __m512i product = m.reduce(lazy(a, b));                              // [0, 2p)
    return m.finish(_mm512_add_epi64(c, _mm512_sub_epi64(m.bound, product)));  // (0, 3p)
  }
};

/// The same for p < 2^60: mu = floor(2^(63 + k) / p), quotient floor(floor(x / 2^(k-1)) mu / 2^64) with
/// an approximate high product, at most 4 too small.
struct WideBarrett {
  Wide m;
  __m512i mu, right, left;

  explicit WideBarrett(const Modulus& modulus)
      : m(modulus.p),
        mu(broadcast(ratio_shifted(modulus, 65 - modulus.bits))),
        right(broadcast(modulus.bits - 1)),
        left(broadcast(64 - (modulus.bits - 1))) {}

  /// a b mod p in [0, 5p), 5p < 2^63; a, b in [0, p).
  [[nodiscard]] __m512i lazy(__m512i a, __m512i b) const {
    const __m512i low32 = broadcast(0xFFFFFFFFU);
    const __m512i a_high = _mm512_srli_epi64(a, 32);
    const __m512i b_high = _mm512_srli_epi64(b, 32);
    const __m512i cross = _mm512_mul_epu32(a, b_high);
    const __m512i carry = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
    const __m512i other = _mm512_add_epi64(_mm512_mul_epu32(a_high, b), carry);  // no overflow
    const __m512i middle = _mm512_add_epi64(cross, _mm512_and_si512(other, low32));
    const __m512i high = _mm512_add_epi64(
        _mm512_mul_epu32(a_high, b_high),
        _mm512_add_epi64(_mm512_srli_epi64(other, 32), _mm512_srli_epi64(middle, 32)));
    const __m512i low = _mm512_mullo_epi64(a, b);
    const __m512i top =
        _mm512_or_si512(_mm512_srlv_epi64(low, right), _mm512_sllv_epi64(high, left));
    const __m512i q = Wide::multiply_high(top, mu);
    return _mm512_sub_epi64(low, _mm512_mullo_epi64(q, m.p));
  }
  [[nodiscard]] __m512i multiply_add(__m512i a, __m512i b, __m512i c) const {
    return m.finish(_mm512_add_epi64(lazy(a, b), c));  // [0, 6p)
  }
  [[nodiscard]] __m512i multiply_subtract(__m512i a, __m512i b, __m512i c) const {
    const __m512i product = m.reduce(lazy(a, b));                              // [0, 4p)
    return m.finish(_mm512_add_epi64(c, _mm512_sub_epi64(m.bound, product)));  // (0, 5p)
  }
};

template <class Barrett>
void multiply_add_by(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                     const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  const Barrett barrett(modulus);
  for (std::size_t i = 0; i < n; i += 8) {
    store(out + i, barrett.multiply_add(load(a + i), load(b + i), load(c + i)));
  }
}

template <class Barrett>
void multiply_subtract_by(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                          const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  const Barrett barrett(modulus);
  for (std::size_t i = 0; i < n; i += 8) {
    store(out + i, barrett.multiply_subtract(load(a + i), load(b + i), load(c + i)));
  }
}

template <class Arithmetic>
void scale_add_by(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
                  std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  const Arithmetic m(modulus.p);
  const __m512i w = broadcast(weight);
  const __m512i shoup = Arithmetic::shoup(broadcast(weight_shoup));
  for (std::size_t i = 0; i < n; i += 8) {
    // Below bound + p.
    store(sum + i, m.finish(_mm512_add_epi64(m.multiply(load(x + i), w, shoup), load(sum + i))));
  }
}

template <class Arithmetic>
void subtract_scale_by(std::uint64_t* x, const std::uint64_t* y, std::uint64_t weight,
                       std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  const Arithmetic m(modulus.p);
  const __m512i w = broadcast(weight);
  const __m512i shoup = Arithmetic::shoup(broadcast(weight_shoup));
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i difference = _mm512_add_epi64(load(x + i), _mm512_sub_epi64(m.p, load(y + i)));
    store(x + i, m.finish(m.multiply(difference, w, shoup)));
  }
}

inline __m512i load_small(const std::int8_t* e) {
  return _mm512_cvtepi8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(e)));
}

/// [-p, p) -> [0, p): a negative number is a huge unsigned one.
inline __m512i lift(__m512i x, __m512i p) { return _mm512_min_epu64(x, _mm512_add_epi64(x, p)); }

}  // namespace

void multiply_add(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                  const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  is_small(modulus) ? multiply_add_by<SmallBarrett>(out, a, b, c, n, modulus)
                    : multiply_add_by<WideBarrett>(out, a, b, c, n, modulus);
}

void multiply_subtract(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                       const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  is_small(modulus) ? multiply_subtract_by<SmallBarrett>(out, a, b, c, n, modulus)
                    : multiply_subtract_by<WideBarrett>(out, a, b, c, n, modulus);
}

void add(std::uint64_t* sum, const std::uint64_t* x, std::size_t n, const Modulus& modulus) {
  const __m512i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 8) {
    store(sum + i, reduce_once(_mm512_add_epi64(load(sum + i), load(x + i)), p));
  }
}

void scale_add(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
               std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  is_small(modulus) ? scale_add_by<Small>(sum, x, weight, weight_shoup, n, modulus)
                    : scale_add_by<Wide>(sum, x, weight, weight_shoup, n, modulus);
}

void subtract_scale(std::uint64_t* x, const std::uint64_t* y, std::uint64_t weight,
                    std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  is_small(modulus) ? subtract_scale_by<Small>(x, y, weight, weight_shoup, n, modulus)
                    : subtract_scale_by<Wide>(x, y, weight, weight_shoup, n, modulus);
}

void remainder(std::uint64_t* out, const std::int64_t* x, std::uint64_t offset, std::size_t n,
               const Modulus& modulus) {
  // Shoup's method with w = 1: floor(2^64 / p) is the quotient's factor.
  const Wide m(modulus.p);
  const __m512i one_shoup = broadcast(modulus.ratio_hi);
  const __m512i shift = broadcast(modulus.p - offset);
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i value = _mm512_loadu_si512(x + i);
    const __m512i magnitude = _mm512_abs_epi64(value);
    const __m512i q = Wide::multiply_high(magnitude, one_shoup);
    const __m512i r =
        m.finish(_mm512_sub_epi64(magnitude, _mm512_mullo_epi64(q, m.p)));  // from [0, 4p)
    const __m512i lifted =
        reduce_once(_mm512_mask_sub_epi64(r, _mm512_movepi64_mask(value), m.p, r), m.p);
    store(out + i, reduce_once(_mm512_add_epi64(lifted, shift), m.p));
  }
}

void lift_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const __m512i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 8) store(x + i, lift(load_small(e + i), p));
}

void subtract_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const __m512i p = broadcast(modulus.p);
  for (std::size_t i = 0; i < n; i += 8) {
    const __m512i y = _mm512_sub_epi64(load(x + i), load_small(e + i));  // (-p, 2p)
    store(x + i, reduce_once(lift(y, p), p));
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
