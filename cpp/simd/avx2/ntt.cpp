// Negacyclic NTT in doubles: two layers of butterflies a pass (radix 4) down to groups of 4, whose
// last two layers run on four groups at a time, transposed in registers. Groups are split depth first,
// so that everything below 2048 coefficients (16 KiB) runs in the L1 cache. Between passes the
// coefficients are doubles in the same memory.
//
// A group is known by its root index r: its own twiddle is root[r], those of its halves are
// root[2 r] and root[2 r + 1].
//
// Sizes in multiples of p, with |x w| <= |x| / 2 + ... for centred w (real.h): a product of |x| <= X
// is at most 1/2 + X / 8. Forward, a pass takes in |x| <= 2.4 and reduces its first quarter only;
// products stay below 0.95, sums below 3.3. Inverse, a pass takes in |x| <= 1 and reduces the two
// quarters that are not products; sums stay at or below 4.
#include "simd/avx2/avx2.h"
#include "simd/avx2/real.h"

namespace quancrypt::simd::avx2 {
namespace {

constexpr std::size_t kCacheLength = 2048;

struct Twiddle {
  __m256d w, ratio;
  Twiddle(const double* real, const double* ratios, std::size_t r)
      : w(_mm256_broadcast_sd(real + r)), ratio(_mm256_broadcast_sd(ratios + r)) {}
  Twiddle(__m256d value, __m256d value_ratio) : w(value), ratio(value_ratio) {}
};

inline __m256d times(__m256d x, const Twiddle& t, const Prime& m) {
  return multiply(x, t.w, t.ratio, m);
}

struct Quad {
  __m256d a, b, c, d;
};

/// Two layers on four quarters: (a, c) and (b, d) with t1, then (a, b) with t2 and (c, d) with t3.
inline void forward_butterflies(Quad& q, const Twiddle& t1, const Twiddle& t2, const Twiddle& t3,
                                const Prime& m) {
  const __m256d a = reduce(q.a, m);
  const __m256d c = times(q.c, t1, m);
  const __m256d d = times(q.d, t1, m);
  const __m256d a1 = _mm256_add_pd(a, c);
  const __m256d c1 = _mm256_sub_pd(a, c);
  const __m256d b1 = times(_mm256_add_pd(q.b, d), t2, m);
  const __m256d d1 = times(_mm256_sub_pd(q.b, d), t3, m);
  q = {_mm256_add_pd(a1, b1), _mm256_sub_pd(a1, b1), _mm256_add_pd(c1, d1), _mm256_sub_pd(c1, d1)};
}

/// The two layers backwards: (a, b) with t2 and (c, d) with t3, then (a, c) and (b, d) with t1.
inline void inverse_butterflies(Quad& q, const Twiddle& t1, const Twiddle& t2, const Twiddle& t3,
                                const Prime& m) {
  const __m256d a = _mm256_add_pd(q.a, q.b);
  const __m256d b = times(_mm256_sub_pd(q.a, q.b), t2, m);
  const __m256d c = _mm256_add_pd(q.c, q.d);
  const __m256d d = times(_mm256_sub_pd(q.c, q.d), t3, m);
  q.a = reduce(_mm256_add_pd(a, c), m);
  q.c = times(_mm256_sub_pd(a, c), t1, m);
  q.b = reduce(_mm256_add_pd(b, d), m);
  q.d = times(_mm256_sub_pd(b, d), t1, m);
}

/// Rows of four groups <-> vectors of first, second, third and fourth coefficients.
inline void transpose(Quad& q) {
  const __m256d ab_low = _mm256_unpacklo_pd(q.a, q.b);
  const __m256d ab_high = _mm256_unpackhi_pd(q.a, q.b);
  const __m256d cd_low = _mm256_unpacklo_pd(q.c, q.d);
  const __m256d cd_high = _mm256_unpackhi_pd(q.c, q.d);
  q.a = _mm256_permute2f128_pd(ab_low, cd_low, 0x20);
  q.b = _mm256_permute2f128_pd(ab_high, cd_high, 0x20);
  q.c = _mm256_permute2f128_pd(ab_low, cd_low, 0x31);
  q.d = _mm256_permute2f128_pd(ab_high, cd_high, 0x31);
}

/// Coefficients in memory: integers before the first pass and after the last, doubles in between.
struct Memory {
  static __m256d real(const std::uint64_t* x) { return _mm256_castsi256_pd(load(x)); }
  static void put_real(std::uint64_t* x, __m256d v) { store(x, _mm256_castpd_si256(v)); }
};

inline Quad load_quad(const std::uint64_t* x, std::size_t stride, bool integers) {
  if (integers) {
    return {load_real(x), load_real(x + stride), load_real(x + 2 * stride),
            load_real(x + 3 * stride)};
  }
  return {Memory::real(x), Memory::real(x + stride), Memory::real(x + 2 * stride),
          Memory::real(x + 3 * stride)};
}

inline void store_quad(std::uint64_t* x, std::size_t stride, const Quad& q) {
  Memory::put_real(x, q.a);
  Memory::put_real(x + stride, q.b);
  Memory::put_real(x + 2 * stride, q.c);
  Memory::put_real(x + 3 * stride, q.d);
}

/// Twiddles of four groups of 4 from root index r on: t1 = r .. r + 3; t2 and t3 the even and the odd
/// ones of 2 r .. 2 r + 7.
struct GroupTwiddles {
  Twiddle t1, t2, t3;
  GroupTwiddles(const double* real, const double* ratios, std::size_t r)
      : t1(_mm256_loadu_pd(real + r), _mm256_loadu_pd(ratios + r)),
        t2(evens(real + 2 * r), evens(ratios + 2 * r)),
        t3(odds(real + 2 * r), odds(ratios + 2 * r)) {}

  static __m256d evens(const double* x) {
    return _mm256_permute4x64_pd(_mm256_unpacklo_pd(_mm256_loadu_pd(x), _mm256_loadu_pd(x + 4)),
                                 0xD8);
  }
  static __m256d odds(const double* x) {
    return _mm256_permute4x64_pd(_mm256_unpackhi_pd(_mm256_loadu_pd(x), _mm256_loadu_pd(x + 4)),
                                 0xD8);
  }
};

struct Forward {
  const double* real;
  const double* ratio;
  Prime m;

  [[nodiscard]] Twiddle twiddle(std::size_t r) const { return {real, ratio, r}; }

  /// The first layer of a ring of odd log2 degree: integers -> doubles.
  void radix2(std::uint64_t* x, std::size_t length) const {
    const Twiddle t = twiddle(1);
    const std::size_t half = length / 2;
    for (std::size_t j = 0; j < half; j += 4) {
      const __m256d u = load_real(x + j);
      const __m256d v = times(load_real(x + half + j), t, m);
      Memory::put_real(x + j, _mm256_add_pd(u, v));
      Memory::put_real(x + half + j, _mm256_sub_pd(u, v));
    }
  }

  template <bool integers>
  void radix4(std::uint64_t* x, std::size_t length, std::size_t r) const {
    const Twiddle t1 = twiddle(r);
    const Twiddle t2 = twiddle(2 * r);
    const Twiddle t3 = twiddle(2 * r + 1);
    const std::size_t quarter = length / 4;
    for (std::size_t j = 0; j < quarter; j += 4) {
      Quad q = load_quad(x + j, quarter, integers);
      forward_butterflies(q, t1, t2, t3, m);
      store_quad(x + j, quarter, q);
    }
  }

  /// Groups of 4 from root index r on, then integers in [0, p).
  void last_layers(std::uint64_t* x, std::size_t length, std::size_t r) const {
    for (std::size_t j = 0; j < length; j += 16, r += 4) {
      Quad q = load_quad(x + j, 4, false);
      transpose(q);
      const GroupTwiddles t(real, ratio, r);
      forward_butterflies(q, t.t1, t.t2, t.t3, m);
      q = {lift(reduce(q.a, m), m), lift(reduce(q.b, m), m), lift(reduce(q.c, m), m),
           lift(reduce(q.d, m), m)};
      transpose(q);
      store(x + j, to_integer(q.a));
      store(x + j + 4, to_integer(q.b));
      store(x + j + 8, to_integer(q.c));
      store(x + j + 12, to_integer(q.d));
    }
  }

  /// All layers of one group of 4^k coefficients that are doubles, but the ring's first pass.
  void group(std::uint64_t* x, std::size_t length, std::size_t r) const {
    if (length > kCacheLength) {
      radix4<false>(x, length, r);
      for (std::size_t i = 0; i < 4; ++i) group(x + i * (length / 4), length / 4, 4 * r + i);
      return;
    }
    std::size_t groups = 1;
    std::size_t each = length;
    for (; each >= 16; each /= 4, groups *= 4) {
      for (std::size_t i = 0; i < groups; ++i) radix4<false>(x + i * each, each, groups * r + i);
    }
    last_layers(x, length, groups * r);
  }
};

struct Inverse {
  const double* real;
  const double* ratio;
  Prime m;

  [[nodiscard]] Twiddle twiddle(std::size_t r) const { return {real, ratio, r}; }

  void radix4(std::uint64_t* x, std::size_t length, std::size_t r) const {
    const Twiddle t1 = twiddle(r);
    const Twiddle t2 = twiddle(2 * r);
    const Twiddle t3 = twiddle(2 * r + 1);
    const std::size_t quarter = length / 4;
    for (std::size_t j = 0; j < quarter; j += 4) {
      Quad q = load_quad(x + j, quarter, false);
      inverse_butterflies(q, t1, t2, t3, m);
      store_quad(x + j, quarter, q);
    }
  }

  void first_layers(std::uint64_t* x, std::size_t length, std::size_t r) const {
    for (std::size_t j = 0; j < length; j += 16, r += 4) {
      Quad q = load_quad(x + j, 4, true);
      transpose(q);
      const GroupTwiddles t(real, ratio, r);
      inverse_butterflies(q, t.t1, t.t2, t.t3, m);
      transpose(q);
      store_quad(x + j, 4, q);
    }
  }

  void group(std::uint64_t* x, std::size_t length, std::size_t r) const {
    if (length > kCacheLength) {
      for (std::size_t i = 0; i < 4; ++i) group(x + i * (length / 4), length / 4, 4 * r + i);
      radix4(x, length, r);
      return;
    }
    std::size_t groups = length / 4;
    first_layers(x, length, groups * r);
    for (std::size_t each = 16; each <= length; each *= 4) {
      groups /= 4;
      for (std::size_t i = 0; i < groups; ++i) radix4(x + i * each, each, groups * r + i);
    }
  }

  /// The last step: the last layer of a ring of odd log2 degree, 1 / n, integers in [0, p).
  void finish(std::uint64_t* x, std::size_t n, bool odd, const Twiddle& inverse_n) const {
    const std::size_t half = n / 2;
    const Twiddle t = twiddle(1);
    for (std::size_t j = 0; j < half; j += 4) {
      __m256d lo = Memory::real(x + j);
      __m256d hi = Memory::real(x + half + j);
      if (odd) {
        const __m256d difference = _mm256_sub_pd(lo, hi);
        lo = _mm256_add_pd(lo, hi);
        hi = times(difference, t, m);
      }
      store(x + j, to_integer(normalize(times(lo, inverse_n, m), m)));
      store(x + half + j, to_integer(normalize(times(hi, inverse_n, m), m)));
    }
  }
};

}  // namespace

void ntt_forward(std::uint64_t* x, const NttTable& table) {
  if (table.real == nullptr || table.log_n < 5) {
    portable_kernels()->ntt_forward(x, table);
    return;
  }
  const std::size_t n = std::size_t{1} << table.log_n;
  const Forward transform{table.real, table.ratio, Prime(table.modulus.p)};
  if (table.log_n % 2 == 1) {
    transform.radix2(x, n);
    transform.group(x, n / 2, 2);
    transform.group(x + n / 2, n / 2, 3);
    return;
  }
  transform.radix4<true>(x, n, 1);
  for (std::size_t i = 0; i < 4; ++i) transform.group(x + i * (n / 4), n / 4, 4 + i);
}

void ntt_inverse(std::uint64_t* x, const NttTable& table) {
  if (table.real == nullptr || table.log_n < 5) {
    portable_kernels()->ntt_inverse(x, table);
    return;
  }
  const std::size_t n = std::size_t{1} << table.log_n;
  const Inverse transform{table.inverse_real, table.inverse_ratio, Prime(table.modulus.p)};
  const bool odd = table.log_n % 2 == 1;
  if (odd) {
    transform.group(x, n / 2, 2);
    transform.group(x + n / 2, n / 2, 3);
  } else {
    transform.group(x, n, 1);
  }
  transform.finish(x, n, odd,
                   {_mm256_set1_pd(table.inverse_n_real), _mm256_set1_pd(table.inverse_n_ratio)});
}

}  // namespace quancrypt::simd::avx2
