// ChaCha20 (RFC 8439) on sixteen blocks at a time, two such sets in turn, and the samplers.
#include <immintrin.h>

#include "simd/avx512/avx512.h"
#include "simd/constant_time.h"

namespace quancrypt::simd::avx512 {
namespace {

constexpr std::size_t kLanes = 16;

#if defined(__GNUC__) && !defined(__clang__)
// In place, so that all 32 registers can be in use: GCC gives results other registers and spills.
inline void add_to(__m512i& x, __m512i y) { asm("vpaddd %1, %0, %0" : "+v"(x) : "v"(y)); }
template <int bits>
inline void xor_rotate(__m512i& x, __m512i y) {
  asm("vpxord %1, %0, %0" : "+v"(x) : "v"(y));
  asm("vprold %1, %0, %0" : "+v"(x) : "i"(bits));
}
#else
inline void add_to(__m512i& x, __m512i y) { x = _mm512_add_epi32(x, y); }
template <int bits>
inline void xor_rotate(__m512i& x, __m512i y) {
  x = _mm512_rol_epi32(_mm512_xor_si512(x, y), bits);
}
#endif

/// Quarter rounds of the columns (shift 0) or diagonals (shift 1), step by step: each waits for the one
/// before.
template <int shift>
inline void quarter_rounds(__m512i v[16]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) add_to(v[i], v[4 + (i + shift) % 4]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) xor_rotate<16>(v[12 + (i + 3 * shift) % 4], v[i]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) add_to(v[8 + (i + 2 * shift) % 4], v[12 + (i + 3 * shift) % 4]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) xor_rotate<12>(v[4 + (i + shift) % 4], v[8 + (i + 2 * shift) % 4]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) add_to(v[i], v[4 + (i + shift) % 4]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) xor_rotate<8>(v[12 + (i + 3 * shift) % 4], v[i]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) add_to(v[8 + (i + 2 * shift) % 4], v[12 + (i + 3 * shift) % 4]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) xor_rotate<7>(v[4 + (i + shift) % 4], v[8 + (i + 2 * shift) % 4]);
}

/// Word w of sixteen blocks in v[w] -> sixteen blocks of 64 bytes.
inline void store_transposed(__m512i v[16], std::uint8_t* out) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512i a = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    const __m512i b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]);
    const __m512i d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
    // t[i + k]: words i .. i + 3 of the blocks k, 4 + k, 8 + k, 12 + k, one in each 128-bit lane.
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int k = 0; k < 4; ++k) {
    const __m512i a = _mm512_shuffle_i32x4(t[k], t[4 + k], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(t[8 + k], t[12 + k], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(t[k], t[4 + k], 0xEE);
    const __m512i d = _mm512_shuffle_i32x4(t[8 + k], t[12 + k], 0xEE);
    _mm512_storeu_si512(out + 64 * k, _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_storeu_si512(out + 64 * (4 + k), _mm512_shuffle_i32x4(a, b, 0xDD));
    _mm512_storeu_si512(out + 64 * (8 + k), _mm512_shuffle_i32x4(c, d, 0x88));
    _mm512_storeu_si512(out + 64 * (12 + k), _mm512_shuffle_i32x4(c, d, 0xDD));
  }
}

/// Twenty rounds of `sets` times sixteen blocks, each in sixteen registers. One set leaves the CPU
/// waiting for its own results; two fill all registers that there are.
template <int sets>
inline void rounds(__m512i v[][16]) {
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
    for (int s = 0; s < sets; ++s) quarter_rounds<0>(v[s]);
#pragma GCC unroll 2
    for (int s = 0; s < sets; ++s) quarter_rounds<1>(v[s]);
  }
}

inline std::uint32_t load_le32(const std::uint8_t* bytes) {
  std::uint32_t value = 0;
  __builtin_memcpy(&value, bytes, sizeof(value));  // x86 is little-endian
  return value;
}

}  // namespace

void chacha20(const std::uint8_t key[32], const std::uint8_t nonce[12], std::uint32_t counter,
              std::uint8_t* out, std::size_t blocks) {
  if (blocks <= 2) {
    portable_kernels()->chacha20(key, nonce, counter, out, blocks);
    return;
  }
  const std::uint32_t constants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  __m512i state[16];
  for (int i = 0; i < 4; ++i) state[i] = _mm512_set1_epi32(static_cast<int>(constants[i]));
  for (int i = 0; i < 8; ++i)
    state[4 + i] = _mm512_set1_epi32(static_cast<int>(load_le32(key + 4 * i)));
  for (int i = 0; i < 3; ++i)
    state[13 + i] = _mm512_set1_epi32(static_cast<int>(load_le32(nonce + 4 * i)));
  state[12] =
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(counter)),
                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const __m512i step = _mm512_set1_epi32(kLanes);
  for (; blocks >= 2 * kLanes; blocks -= 2 * kLanes) {
    __m512i v[2][16];
    asm volatile("" : : "r"(state) : "memory");  // reads it anew: no register is left for it
    for (int i = 0; i < 16; ++i) v[0][i] = v[1][i] = state[i];
    v[1][12] = _mm512_add_epi32(v[1][12], step);
    rounds<2>(v);
    for (int s = 0; s < 2; ++s) {
      for (int i = 0; i < 16; ++i) v[s][i] = _mm512_add_epi32(v[s][i], state[i]);
      store_transposed(v[s], out);
      out += kLanes * kChaChaBlock;
      state[12] = _mm512_add_epi32(state[12], step);
    }
  }
  while (blocks > 0) {
    __m512i v[1][16];
    for (int i = 0; i < 16; ++i) v[0][i] = state[i];
    rounds<1>(v);
    for (int i = 0; i < 16; ++i) v[0][i] = _mm512_add_epi32(v[0][i], state[i]);
    if (blocks >= kLanes) {
      store_transposed(v[0], out);
      out += kLanes * kChaChaBlock;
      blocks -= kLanes;
      state[12] = _mm512_add_epi32(state[12], step);
      continue;
    }
    alignas(64) std::uint8_t last[kLanes * kChaChaBlock];
    store_transposed(v[0], last);
    for (std::size_t i = 0; i < blocks; ++i) {
      _mm512_storeu_si512(out + i * kChaChaBlock, _mm512_load_si512(last + i * kChaChaBlock));
    }
    // The unused key stream may be read later under the same key: do not leave it on the stack.
    for (std::size_t i = 0; i < kLanes; ++i) {
      _mm512_store_si512(last + i * kChaChaBlock, _mm512_setzero_si512());
    }
    asm volatile("" : : "r"(last) : "memory");
    blocks = 0;
  }
}

void sample_centred_binomial(const std::uint8_t* random, std::int8_t* out, std::size_t n) {
  // Three bytes to each 32-bit lane: plus and minus words of eight coefficients in turn.
  alignas(64) std::uint8_t index[64];
  for (std::uint8_t lane = 0; lane < 16; ++lane) {
    for (std::uint8_t byte = 0; byte < 4; ++byte) {
      index[4 * lane + byte] = static_cast<std::uint8_t>(3 * lane + byte);
    }
  }
  const __m512i gather = _mm512_load_si512(index);
  const __m512i low21 = _mm512_set1_epi32(0x1FFFFF);  // drops the fourth byte too
  for (std::size_t i = 0; i < n; i += 8, random += 48) {
    const __m512i bytes = _mm512_maskz_loadu_epi8(0xFFFFFFFFFFFFULL, random);
    const __m512i words = _mm512_and_si512(_mm512_permutexvar_epi8(gather, bytes), low21);
    const __m512i counts = _mm512_popcnt_epi32(words);
    const __m512i e = _mm512_sub_epi32(counts, _mm512_srli_epi64(counts, 32));  // low halves count
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm512_cvtepi64_epi8(e));
  }
}

std::size_t sample_ternary(const std::uint8_t* random, std::int8_t* out, std::size_t n) {
  // floor(3 r / 2^32) counts how many of 2^32 / 3 and 2^33 / 3 (rounded up) r reaches.
  const __m512i third = _mm512_set1_epi32(0x55555556);
  const __m512i two_thirds = _mm512_set1_epi32(static_cast<int>(0xAAAAAAABU));
  const __m128i minus_one = _mm_set1_epi8(-1);
  std::size_t first_rejected = n;
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t left = n - i < kLanes ? n - i : kLanes;
    const auto used = static_cast<__mmask16>((1U << left) - 1);
    const __m512i r = _mm512_maskz_loadu_epi32(used, random + 4 * i);
    const __m128i one = _mm_movm_epi8(_mm512_cmpge_epu32_mask(r, third));
    const __m128i two = _mm_movm_epi8(_mm512_cmpge_epu32_mask(r, two_thirds));
    _mm_mask_storeu_epi8(out + i, used, _mm_sub_epi8(_mm_sub_epi8(minus_one, one), two));
    const __mmask16 rejected = _mm512_mask_testn_epi32_mask(used, r, r);
    QUANCRYPT_DECLASSIFY(zero_draw, &rejected, sizeof(rejected));
    if (rejected != 0 && first_rejected == n) {
      first_rejected = i + static_cast<std::size_t>(__builtin_ctz(rejected));
    }
  }
  return first_rejected;
}

}  // namespace quancrypt::simd::avx512
