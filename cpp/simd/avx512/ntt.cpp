// Negacyclic NTT: two layers of butterflies a pass (radix 4) while a group is at least 32
// long, the last three layers inside registers. Groups are split depth first, so that everything
// below 2048 coefficients (16 KiB) runs in the L1 cache.
//
// A group is known by its root index r: its own twiddle is root[r], those of its halves are
// root[2 r] and root[2 r + 1].
#include "simd/avx512/avx512.h"
#include "simd/avx512/butterflies.h"

namespace quancrypt::simd::avx512 {
namespace {

constexpr std::size_t kCacheLength = 2048;

/// Lane orders of the last three layers, on 16 neighbours 0..15 in two registers.
struct Lanes {
  // gap 4: [0-3, 8-11] and [4-7, 12-15]
  __m512i low4 = _mm512_setr_epi64(0, 1, 2, 3, 8, 9, 10, 11);
  __m512i high4 = _mm512_setr_epi64(4, 5, 6, 7, 12, 13, 14, 15);
  // from there to gap 2: [0 1 4 5 8 9 12 13] and [2 3 6 7 10 11 14 15]
  __m512i low2 = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  __m512i high2 = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  // and from gap 2's order back to natural order
  __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  // spread two or four roots over the lanes
  __m512i spread4 = _mm512_setr_epi64(0, 0, 0, 0, 1, 1, 1, 1);
  __m512i spread2 = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
};

inline __m512i pick(__m512i a, __m512i index, __m512i b) {
  return _mm512_permutex2var_epi64(a, index, b);
}

/// The roots of one transform.
template <class Butterflies>
struct Roots {
  const std::uint64_t* root;
  const std::uint64_t* root_shoup;

  [[nodiscard]] Twiddle one(std::size_t r) const {
    return {broadcast(root[r]), Butterflies::shoup(broadcast(root_shoup[r]))};
  }
  [[nodiscard]] Twiddle eight(std::size_t r) const {
    return {load(root + r), Butterflies::shoup(load(root_shoup + r))};
  }
  /// `count` (2 or 4) consecutive roots, spread by `index`.
  [[nodiscard]] Twiddle spread(std::size_t r, __m512i index, int count) const {
    const auto used = static_cast<__mmask8>((1 << count) - 1);
    return {_mm512_permutexvar_epi64(index, _mm512_maskz_loadu_epi64(used, root + r)),
            Butterflies::shoup(
                _mm512_permutexvar_epi64(index, _mm512_maskz_loadu_epi64(used, root_shoup + r)))};
  }
};

template <class Butterflies>
struct Forward {
  Roots<Butterflies> roots;
  Butterflies m;
  Lanes lanes;

  void radix2(std::uint64_t* x, std::size_t length, std::size_t r) const {
    const Twiddle t = roots.one(r);
    const std::size_t half = length / 2;
    for (std::size_t j = 0; j < half; j += 8) {
      __m512i lo = load(x + j);
      __m512i hi = load(x + half + j);
      m.template forward<0>(lo, hi, t);
      store(x + j, lo);
      store(x + half + j, hi);
    }
  }

  void radix4(std::uint64_t* x, std::size_t length, std::size_t r) const {
    const Twiddle t1 = roots.one(r);
    const Twiddle t2 = roots.one(2 * r);
    const Twiddle t3 = roots.one(2 * r + 1);
    const std::size_t quarter = length / 4;
    for (std::size_t j = 0; j < quarter; j += 8) {
      Quad q{load(x + j), load(x + quarter + j), load(x + 2 * quarter + j),
             load(x + 3 * quarter + j)};
      m.forward(q, t1, t2, t3);
      store(x + j, q.a);
      store(x + quarter + j, q.b);
      store(x + 2 * quarter + j, q.c);
      store(x + 3 * quarter + j, q.d);
    }
  }

  /// Groups of 8 from root index r on: gaps 4, 2, 1, then [0, p).
  void last_layers(std::uint64_t* x, std::size_t length, std::size_t r) const {
    for (std::size_t j = 0; j < length; j += 16, r += 2) {
      const __m512i x0 = load(x + j);
      const __m512i x1 = load(x + j + 8);
      __m512i lo = pick(x0, lanes.low4, x1);
      __m512i hi = pick(x0, lanes.high4, x1);
      m.template forward<0>(lo, hi, roots.spread(r, lanes.spread4, 2));
      __m512i lo2 = pick(lo, lanes.low2, hi);
      __m512i hi2 = pick(lo, lanes.high2, hi);
      m.template forward<1>(lo2, hi2, roots.spread(2 * r, lanes.spread2, 4));
      __m512i lo1 = _mm512_unpacklo_epi64(lo2, hi2);
      __m512i hi1 = _mm512_unpackhi_epi64(lo2, hi2);
      m.template forward<2>(lo1, hi1, roots.eight(4 * r));
      lo1 = m.finish(lo1);
      hi1 = m.finish(hi1);
      const __m512i y0 = _mm512_unpacklo_epi64(lo1, hi1);  // 0 1 4 5 8 9 12 13
      const __m512i y1 = _mm512_unpackhi_epi64(lo1, hi1);  // 2 3 6 7 10 11 14 15
      store(x + j, pick(y0, lanes.first, y1));
      store(x + j + 8, pick(y0, lanes.second, y1));
    }
  }

  /// All layers of one group of 8 * 4^k (or the whole ring) coefficients.
  void group(std::uint64_t* x, std::size_t length, std::size_t r) const {
    if (length > kCacheLength) {
      radix4(x, length, r);
      for (std::size_t i = 0; i < 4; ++i) group(x + i * (length / 4), length / 4, 4 * r + i);
      return;
    }
    std::size_t groups = 1;
    std::size_t each = length;
    for (; each >= 32; each /= 4, groups *= 4) {
      for (std::size_t i = 0; i < groups; ++i) radix4(x + i * each, each, groups * r + i);
    }
    last_layers(x, length, groups * r);
  }
};

template <class Butterflies>
struct Inverse {
  Roots<Butterflies> roots;
  Butterflies m;
  Lanes lanes;

  void radix4(std::uint64_t* x, std::size_t length, std::size_t r) const {
    const Twiddle t1 = roots.one(r);
    const Twiddle t2 = roots.one(2 * r);
    const Twiddle t3 = roots.one(2 * r + 1);
    const std::size_t quarter = length / 4;
    for (std::size_t j = 0; j < quarter; j += 8) {
      Quad q{load(x + j), load(x + quarter + j), load(x + 2 * quarter + j),
             load(x + 3 * quarter + j)};
      m.inverse(q, t1, t2, t3);
      store(x + j, q.a);
      store(x + quarter + j, q.b);
      store(x + 2 * quarter + j, q.c);
      store(x + 3 * quarter + j, q.d);
    }
  }

  void radix2(std::uint64_t* x, std::size_t length, std::size_t r) const {
    const Twiddle t = roots.one(r);
    const std::size_t half = length / 2;
    for (std::size_t j = 0; j < half; j += 8) {
      __m512i lo = load(x + j);
      __m512i hi = load(x + half + j);
      m.template inverse<2>(lo, hi, t);
      store(x + j, lo);
      store(x + half + j, hi);
    }
  }

  void first_layers(std::uint64_t* x, std::size_t length, std::size_t r) const {
    for (std::size_t j = 0; j < length; j += 16, r += 2) {
      const __m512i x0 = load(x + j);
      const __m512i x1 = load(x + j + 8);
      const __m512i y0 = pick(x0, lanes.low2, x1);   // 0 1 8 9 4 5 12 13
      const __m512i y1 = pick(x0, lanes.high2, x1);  // 2 3 10 11 6 7 14 15
      // Gap 1 wants evens against odds, in the order of the roots: 0 2 4 6 8 10 12 14.
      const __m512i order = _mm512_setr_epi64(0, 8, 4, 12, 2, 10, 6, 14);
      const __m512i order1 = _mm512_setr_epi64(1, 9, 5, 13, 3, 11, 7, 15);
      __m512i lo1 = pick(y0, order, y1);
      __m512i hi1 = pick(y0, order1, y1);
      m.template inverse<0>(lo1, hi1, roots.eight(4 * r));
      __m512i lo2 = _mm512_unpacklo_epi64(lo1, hi1);  // 0 1 4 5 8 9 12 13
      __m512i hi2 = _mm512_unpackhi_epi64(lo1, hi1);  // 2 3 6 7 10 11 14 15
      m.template inverse<1>(lo2, hi2, roots.spread(2 * r, lanes.spread2, 4));
      __m512i lo = pick(lo2, lanes.low2, hi2);   // 0 1 2 3 8 9 10 11
      __m512i hi = pick(lo2, lanes.high2, hi2);  // 4 5 6 7 12 13 14 15
      m.template inverse<2>(lo, hi, roots.spread(r, lanes.spread4, 2));
      store(x + j, pick(lo, lanes.low4, hi));
      store(x + j + 8, pick(lo, lanes.high4, hi));
    }
  }

  void group(std::uint64_t* x, std::size_t length, std::size_t r) const {
    if (length > kCacheLength) {
      for (std::size_t i = 0; i < 4; ++i) group(x + i * (length / 4), length / 4, 4 * r + i);
      radix4(x, length, r);
      return;
    }
    std::size_t groups = length / 8;
    first_layers(x, length, groups * r);
    for (std::size_t each = 32; each <= length; each *= 4) {
      groups /= 4;
      for (std::size_t i = 0; i < groups; ++i) radix4(x + i * each, each, groups * r + i);
    }
  }
};

template <class Butterflies>
void forward(std::uint64_t* x, const NttTable& table) {
  const std::size_t n = std::size_t{1} << table.log_n;
  const Forward<Butterflies> transform{
      {table.root, table.root_shoup}, Butterflies(table.modulus.p), {}};
  if (table.log_n % 2 == 1) {  // 8 * 4^k
    transform.group(x, n, 1);
    return;
  }
  transform.radix2(x, n, 1);
  transform.group(x, n / 2, 2);
  transform.group(x + n / 2, n / 2, 3);
}

template <class Butterflies>
void inverse(std::uint64_t* x, const NttTable& table) {
  const std::size_t n = std::size_t{1} << table.log_n;
  const Inverse<Butterflies> transform{
      {table.inverse_root, table.inverse_root_shoup}, Butterflies(table.modulus.p), {}};
  if (table.log_n % 2 == 1) {
    transform.group(x, n, 1);
  } else {
    transform.group(x, n / 2, 2);
    transform.group(x + n / 2, n / 2, 3);
    transform.radix2(x, n, 1);
  }
  const Twiddle t{broadcast(table.inverse_n), Butterflies::shoup(broadcast(table.inverse_n_shoup))};
  for (std::size_t j = 0; j < n; j += 8) store(x + j, transform.m.scale(load(x + j), t));
}

/// Calls the transform of the style that fits the prime.
template <class Call>
void choose(const Modulus& modulus, const Call& call) {
  if (modulus.bits <= kLazyPrimeBits) {
    call.template operator()<Lazy>();
  } else if (is_small(modulus)) {
    call.template operator()<Strict<Small>>();
  } else {
    call.template operator()<Strict<Wide>>();
  }
}

}  // namespace

void ntt_forward(std::uint64_t* x, const NttTable& table) {
  choose(table.modulus, [&]<class Butterflies>() { forward<Butterflies>(x, table); });
}

void ntt_inverse(std::uint64_t* x, const NttTable& table) {
  choose(table.modulus, [&]<class Butterflies>() { inverse<Butterflies>(x, table); });
}

}  // namespace quancrypt::simd::avx512
