// SHA-256 (FIPS 180-4), up to four texts in turn. The two state registers of a text hold the words
// a b e f and c d g h, as the instructions want them.
#include <immintrin.h>

#include "simd/sha/sha.h"

namespace quancrypt::simd::sha {
namespace {

constexpr std::size_t kBlock = 64;

alignas(16) constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

inline __m128i load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

inline void store(void* to, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(to), v); }

/// Big-endian words.
inline __m128i swapped(__m128i v) {
  return _mm_shuffle_epi8(v, _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
}

template <int texts>
struct State {
  __m128i abef[texts];
  __m128i cdgh[texts];
};

/// `blocks` blocks of each text.
template <int texts>
inline void compress(State<texts>& state, const std::uint8_t* const* from, std::size_t blocks) {
  for (std::size_t at = 0; at < blocks * kBlock; at += kBlock) {
    State<texts> now = state;
    __m128i w[texts][4];  // the last sixteen words of the schedule
    for (int t = 0; t < texts; ++t) {
      for (int i = 0; i < 4; ++i) w[t][i] = swapped(load(from[t] + at + 16 * i));
    }
#pragma GCC unroll 16
    for (int round = 0; round < 16; ++round) {  // four rounds of SHA-256 at a time
      const __m128i constants = load(kRound + 4 * round);
#pragma GCC unroll 4
      for (int t = 0; t < texts; ++t) {
        __m128i& word = w[t][round % 4];
        if (round >= 4) {
          const __m128i before = w[t][(round + 3) % 4];
          const __m128i seven_before = _mm_alignr_epi8(before, w[t][(round + 2) % 4], 4);
          word = _mm_sha256msg1_epu32(word, w[t][(round + 1) % 4]);
          word = _mm_sha256msg2_epu32(_mm_add_epi32(word, seven_before), before);
        }
        const __m128i sum = _mm_add_epi32(word, constants);
        now.cdgh[t] = _mm_sha256rnds2_epu32(now.cdgh[t], now.abef[t], sum);
        now.abef[t] = _mm_sha256rnds2_epu32(now.abef[t], now.cdgh[t], _mm_shuffle_epi32(sum, 0x0E));
      }
    }
    for (int t = 0; t < texts; ++t) {
      state.abef[t] = _mm_add_epi32(state.abef[t], now.abef[t]);
      state.cdgh[t] = _mm_add_epi32(state.cdgh[t], now.cdgh[t]);
    }
  }
}

template <int texts>
void hash(const std::uint8_t* const* from, std::size_t size, std::uint8_t (*digests)[32]) {
  State<texts> state;
  for (int t = 0; t < texts; ++t) {
    state.abef[t] = _mm_setr_epi32(static_cast<int>(0x9b05688c), 0x510e527f,
                                   static_cast<int>(0xbb67ae85), 0x6a09e667);
    state.cdgh[t] =
        _mm_setr_epi32(0x5be0cd19, 0x1f83d9ab, static_cast<int>(0xa54ff53a), 0x3c6ef372);
  }
  const std::size_t blocks = size / kBlock;
  compress<texts>(state, from, blocks);
  // What is left, a bit of 1, zeros, and the length in bits, big-endian: one block or two.
  const std::size_t left = size % kBlock;
  const std::size_t end = left < kBlock - 8 ? 1 : 2;
  std::uint8_t last[texts][2 * kBlock] = {};
  const std::uint8_t* tails[texts];
  for (int t = 0; t < texts; ++t) {
    __builtin_memcpy(last[t], from[t] + blocks * kBlock, left);
    last[t][left] = 0x80;
    for (std::size_t i = 0; i < 8; ++i) {
      last[t][end * kBlock - 1 - i] =
          static_cast<std::uint8_t>(static_cast<std::uint64_t>(size) * 8 >> (8 * i));
    }
    tails[t] = last[t];
  }
  compress<texts>(state, tails, end);
  for (int t = 0; t < texts; ++t) {
    const __m128i feba = state.abef[t];
    const __m128i hgdc = state.cdgh[t];
    const __m128i abcd = _mm_shuffle_epi32(_mm_unpackhi_epi64(hgdc, feba), 0x1B);
    const __m128i efgh = _mm_shuffle_epi32(_mm_unpacklo_epi64(hgdc, feba), 0x1B);
    store(digests[t], swapped(abcd));
    store(digests[t] + 16, swapped(efgh));
  }
}

}  // namespace

void sha256(const std::uint8_t* const* texts, std::size_t count, std::size_t size,
            std::uint8_t (*digests)[32]) {
  switch (count) {
    case 1:
      return hash<1>(texts, size, digests);
    case 2:
      return hash<2>(texts, size, digests);
    case 3:
      return hash<3>(texts, size, digests);
    default:
      return hash<4>(texts, size, digests);
  }
}

}  // namespace quancrypt::simd::sha
