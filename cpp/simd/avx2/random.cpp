// ChaCha20 (RFC 8439) on eight blocks at a time, and the samplers.
#include <immintrin.h>

#include "simd/avx2/avx2.h"
#include "simd/constant_time.h"

namespace quancrypt::simd::avx2 {
namespace {

constexpr std::size_t kLanes = 8;

template <int bits>
inline __m256i rotate(__m256i x) {
  return _mm256_or_si256(_mm256_slli_epi32(x, bits), _mm256_srli_epi32(x, 32 - bits));
}

/// Rotations by whole bytes are one shuffle.
struct ByteRotations {
  __m256i by16 = _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,  //
                                  2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  __m256i by8 = _mm256_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14,  //
                                 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14);
};

inline void quarter_round(__m256i& a, __m256i& b, __m256i& c, __m256i& d, const ByteRotations& r) {
  a = _mm256_add_epi32(a, b);
  d = _mm256_shuffle_epi8(_mm256_xor_si256(d, a), r.by16);
  c = _mm256_add_epi32(c, d);
  b = rotate<12>(_mm256_xor_si256(b, c));
  a = _mm256_add_epi32(a, b);
  d = _mm256_shuffle_epi8(_mm256_xor_si256(d, a), r.by8);
  c = _mm256_add_epi32(c, d);
  b = rotate<7>(_mm256_xor_si256(b, c));
}

inline void store(std::uint8_t* out, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), v);
}

/// Words w .. w + 7 of eight blocks in v[0 .. 7] -> 32 bytes of each block at out + 64 block.
inline void store_transposed(const __m256i v[8], std::uint8_t* out) {
  __m256i t[8];
  for (int i = 0; i < 8; i += 4) {
    const __m256i a = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    const __m256i b = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    const __m256i c = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]);
    const __m256i d = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
    // t[i + k]: words i .. i + 3 of the blocks k and 4 + k, one in each half.
    t[i] = _mm256_unpacklo_epi64(a, c);
    t[i + 1] = _mm256_unpackhi_epi64(a, c);
    t[i + 2] = _mm256_unpacklo_epi64(b, d);
    t[i + 3] = _mm256_unpackhi_epi64(b, d);
  }
  for (std::size_t k = 0; k < 4; ++k) {
    store(out + 64 * k, _mm256_permute2x128_si256(t[k], t[4 + k], 0x20));
    store(out + 64 * (4 + k), _mm256_permute2x128_si256(t[k], t[4 + k], 0x31));
  }
}

inline std::uint32_t load_le32(const std::uint8_t* bytes) {
  std::uint32_t value = 0;
  __builtin_memcpy(&value, bytes, sizeof(value));  // x86 is little-endian
  return value;
}

inline __m256i broadcast(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }

/// Twelve bytes, three to each 32-bit lane, of which the low 21 bits count.
inline __m128i spread21(__m128i bytes, __m128i index) {
  return _mm_and_si128(_mm_shuffle_epi8(bytes, index), _mm_set1_epi32(0x1FFFFF));
}

/// Set bits of each 32-bit lane: nibbles through an in-register table, which takes constant time.
inline __m256i count_bits(__m256i x) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
  const __m256i high =
      _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi32(x, 4), nibble));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_add_epi8(low, high), _mm256_set1_epi8(1));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

inline __m128i load16(const std::uint8_t* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

}  // namespace

void chacha20(const std::uint8_t key[32], const std::uint8_t nonce[12], std::uint32_t counter,
              std::uint8_t* out, std::size_t blocks) {
  if (blocks <= 1) {
    portable_kernels()->chacha20(key, nonce, counter, out, blocks);
    return;
  }
  const ByteRotations r;
  const std::uint32_t constants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  __m256i state[16];
  for (int i = 0; i < 4; ++i) state[i] = broadcast(constants[i]);
  for (int i = 0; i < 8; ++i) state[4 + i] = broadcast(load_le32(key + 4 * i));
  for (int i = 0; i < 3; ++i) state[13 + i] = broadcast(load_le32(nonce + 4 * i));
  state[12] = _mm256_add_epi32(broadcast(counter), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  while (blocks > 0) {
    __m256i v[16];
    for (int i = 0; i < 16; ++i) v[i] = state[i];
    for (int round = 0; round < 10; ++round) {
      quarter_round(v[0], v[4], v[8], v[12], r);
      quarter_round(v[1], v[5], v[9], v[13], r);
      quarter_round(v[2], v[6], v[10], v[14], r);
      quarter_round(v[3], v[7], v[11], v[15], r);
      quarter_round(v[0], v[5], v[10], v[15], r);
      quarter_round(v[1], v[6], v[11], v[12], r);
      quarter_round(v[2], v[7], v[8], v[13], r);
      quarter_round(v[3], v[4], v[9], v[14], r);
    }
    for (int i = 0; i < 16; ++i) v[i] = _mm256_add_epi32(v[i], state[i]);
    if (blocks >= kLanes) {
      store_transposed(v, out);
      store_transposed(v + 8, out + 32);
      out += kLanes * kChaChaBlock;
      blocks -= kLanes;
      state[12] = _mm256_add_epi32(state[12], broadcast(kLanes));
      continue;
    }
    alignas(32) std::uint8_t last[kLanes * kChaChaBlock];
    store_transposed(v, last);
    store_transposed(v + 8, last + 32);
    __builtin_memcpy(out, last, blocks * kChaChaBlock);
    // The unused key stream may be read later under the same key: do not leave it on the stack.
    __builtin_memset(last, 0, sizeof(last));
    asm volatile("" : : "r"(last) : "memory");
    blocks = 0;
  }
}

void sample_centred_binomial(const std::uint8_t* random, std::int8_t* out, std::size_t n) {
  // Bytes 0 .. 11 of a load from the start, bytes 4 .. 15 of one that ends with the 24 bytes.
  const __m128i first = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
  const __m128i second = _mm_setr_epi8(4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1);
  const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  for (std::size_t i = 0; i < n; i += 8, random += 48) {
    __m128i four[2];
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t* at = random + 24 * half;
      // Plus and minus words of four coefficients in turn.
      const __m256i counts = count_bits(
          _mm256_set_m128i(spread21(load16(at + 8), second), spread21(load16(at), first)));
      const __m256i e = _mm256_sub_epi32(counts, _mm256_srli_epi64(counts, 32));
      four[half] = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(e, even));
    }
    const __m128i words = _mm_packs_epi32(four[0], four[1]);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm_packs_epi16(words, words));
  }
}

std::size_t sample_ternary(const std::uint8_t* random, std::int8_t* out, std::size_t n) {
  // floor(3 r / 2^32) counts how many of 2^32 / 3 and 2^33 / 3 (rounded up) r reaches. Comparisons
  // are signed: both sides are shifted by 2^31.
  const __m256i sign = broadcast(0x80000000U);
  const __m256i third = broadcast(0x55555555U ^ 0x80000000U);       // r > 0x55555555
  const __m256i two_thirds = broadcast(0xAAAAAAAAU ^ 0x80000000U);  // r > 0xAAAAAAAA
  std::size_t first_rejected = n;
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const __m256i r = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(random + 4 * i));
    const __m256i shifted = _mm256_xor_si256(r, sign);
    __m256i t = _mm256_set1_epi32(-1);
    t = _mm256_sub_epi32(t, _mm256_cmpgt_epi32(shifted, third));
    t = _mm256_sub_epi32(t, _mm256_cmpgt_epi32(shifted, two_thirds));
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm_packs_epi16(words, words));
    const int rejected =
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(r, _mm256_setzero_si256())));
    QUANCRYPT_DECLASSIFY(zero_draw, &rejected, sizeof(rejected));
    if (rejected != 0 && first_rejected == n) {
      first_rejected = i + static_cast<std::size_t>(__builtin_ctz(static_cast<unsigned>(rejected)));
    }
  }
  const std::size_t rest = portable_kernels()->sample_ternary(random + 4 * i, out + i, n - i);
  return first_rejected < n ? first_rejected : i + rest;
}

}  // namespace quancrypt::simd::avx2
