// Eight numbers of b bits are b bytes: one byte permutation and one variable shift each way.
#include <immintrin.h>

#include "simd/avx512/avx512.h"
#include "simd/constant_time.h"

namespace quancrypt::simd::avx512 {
namespace {

constexpr std::uint32_t kMinBits = 8;   // a byte holds parts of at most two numbers
constexpr std::uint32_t kMaxBits = 57;  // a number at any bit offset spans at most eight bytes

struct Permutation {
  alignas(64) std::uint8_t unpack[64];  // bytes 8 j ..: the eight bytes that number j starts in
  alignas(64) std::uint8_t first[64];   // the number that byte k starts in: its byte at k
  alignas(64) std::uint8_t second[64];  // the number that byte k ends in, if another
  std::uint64_t has_second;
  alignas(64) std::uint64_t shift[8];  // bit offset of number j in its first byte
};

constexpr Permutation make_permutation(std::uint32_t bits) {
  Permutation p{};
  for (std::uint32_t j = 0; j < 8; ++j) {
    p.shift[j] = (j * bits) % 8;
    for (std::uint32_t byte = 0; byte < 8; ++byte) {
      const std::uint32_t at = j * bits / 8 + byte;
      p.unpack[8 * j + byte] = static_cast<std::uint8_t>(at < 64 ? at : 63);
    }
  }
  for (std::uint32_t k = 0; k < bits; ++k) {
    const std::uint32_t one = 8 * k / bits;
    const std::uint32_t two = (8 * k + 7) / bits;
    p.first[k] = static_cast<std::uint8_t>(8 * one + (k - one * bits / 8));
    if (two != one && two < 8) {
      p.second[k] = static_cast<std::uint8_t>(8 * two + (k - two * bits / 8));
      p.has_second |= std::uint64_t{1} << k;
    }
  }
  return p;
}

struct Permutations {
  Permutation of[kMaxBits + 1];
  constexpr Permutations() : of{} {
    for (std::uint32_t bits = kMinBits; bits <= kMaxBits; ++bits) of[bits] = make_permutation(bits);
  }
};

constexpr Permutations kPermutations;

}  // namespace

void pack_bits(const std::uint64_t* x, std::size_t n, std::uint32_t bits, std::uint8_t* out) {
  if (bits < kMinBits || bits > kMaxBits) {
    portable_kernels()->pack_bits(x, n, bits, out);
    return;
  }
  const Permutation& p = kPermutations.of[bits];
  const __m512i shift = _mm512_load_si512(p.shift);
  const __m512i first = _mm512_load_si512(p.first);
  const __m512i second = _mm512_load_si512(p.second);
  const __mmask64 size = (std::uint64_t{1} << bits) - 1;
  for (std::size_t i = 0; i < n; i += 8, out += bits) {
    const __m512i v = _mm512_sllv_epi64(_mm512_loadu_si512(x + i), shift);
    const __m512i bytes = _mm512_or_si512(_mm512_permutexvar_epi8(first, v),
                                          _mm512_maskz_permutexvar_epi8(p.has_second, second, v));
    _mm512_mask_storeu_epi8(out, size, bytes);
  }
}

void unpack_bits(const std::uint8_t* in, std::size_t n, std::uint32_t bits, std::uint64_t* out) {
  if (bits < kMinBits || bits > kMaxBits) {
    portable_kernels()->unpack_bits(in, n, bits, out);
    return;
  }
  const Permutation& p = kPermutations.of[bits];
  const __m512i shift = _mm512_load_si512(p.shift);
  const __m512i gather = _mm512_load_si512(p.unpack);
  const __m512i mask = _mm512_set1_epi64((1LL << bits) - 1);
  const __mmask64 size = (std::uint64_t{1} << bits) - 1;
  for (std::size_t i = 0; i < n; i += 8, in += bits) {
    const __m512i bytes = _mm512_maskz_loadu_epi8(size, in);
    const __m512i v = _mm512_srlv_epi64(_mm512_permutexvar_epi8(gather, bytes), shift);
    _mm512_storeu_si512(out + i, _mm512_and_si512(v, mask));
  }
}

namespace {

/// [0, 2p) -> [0, p), and (-p, p) -> [0, p) where a negative number is a huge unsigned one.
template <bool negative>
inline __m512i add_below(__m512i sum, __m512i x, __m512i p) {
  if constexpr (negative) {
    const __m512i difference = _mm512_sub_epi64(sum, x);
    return _mm512_min_epu64(difference, _mm512_add_epi64(difference, p));
  } else {
    const __m512i total = _mm512_add_epi64(sum, x);
    return _mm512_min_epu64(total, _mm512_sub_epi64(total, p));
  }
}

template <bool negative>
bool add_bits_by(const std::uint8_t* in, std::size_t n, std::uint64_t* sum,
                 const Modulus& modulus) {
  const std::uint32_t bits = modulus.bits;
  const Permutation& permutation = kPermutations.of[bits];
  const __m512i shift = _mm512_load_si512(permutation.shift);
  const __m512i gather = _mm512_load_si512(permutation.unpack);
  const __m512i mask = _mm512_set1_epi64((1LL << bits) - 1);
  const __m512i p = _mm512_set1_epi64(static_cast<long long>(modulus.p));
  const __mmask64 size = (std::uint64_t{1} << bits) - 1;
  __mmask8 all = 0xFF;
  for (std::size_t i = 0; i < n; i += 8, in += bits) {
    const __m512i bytes = _mm512_maskz_loadu_epi8(size, in);
    const __m512i x =
        _mm512_and_si512(_mm512_srlv_epi64(_mm512_permutexvar_epi8(gather, bytes), shift), mask);
    const __mmask8 below = _mm512_cmplt_epu64_mask(x, p);
    const __m512i old = _mm512_loadu_si512(sum + i);
    _mm512_storeu_si512(sum + i, _mm512_mask_mov_epi64(old, below, add_below<negative>(old, x, p)));
    all = static_cast<__mmask8>(all & below);
  }
  QUANCRYPT_DECLASSIFY(large_draw, &all, sizeof(all));
  return all == 0xFF;
}

}  // namespace

bool add_bits(const std::uint8_t* in, std::size_t n, bool negative, std::uint64_t* sum,
              const Modulus& modulus) {
  if (modulus.bits < kMinBits || modulus.bits > kMaxBits) {
    return portable_kernels()->add_bits(in, n, negative, sum, modulus);
  }
  return negative ? add_bits_by<true>(in, n, sum, modulus)
                  : add_bits_by<false>(in, n, sum, modulus);
}

}  // namespace quancrypt::simd::avx512
