// Residues on the wire. Reading: two numbers lie within 15 bytes, brought into their lanes by one byte
// shuffle and one variable shift. Writing: shifts whose amounts are constants of the width.
#include <immintrin.h>

#include "simd/avx2/avx2.h"
#include "simd/constant_time.h"

namespace quancrypt::simd::avx2 {
namespace {

constexpr std::uint32_t kMinBits = 8;
constexpr std::uint32_t kMaxBits = 57;  // a number at any bit offset spans at most eight bytes

/// For four numbers at a bit offset of 0 (even groups) or 4 b mod 8 (odd groups) in their first byte.
struct Gather {
  alignas(32) std::uint8_t index[32];  // eight bytes of each number, from those of its pair
  alignas(32) std::uint64_t shift[4];  // bit offset of each number in its first byte
  std::uint32_t pair[2];               // first byte of each pair
};

constexpr Gather make_gather(std::uint32_t bits, std::uint32_t first_number) {
  Gather g{};
  for (std::uint32_t half = 0; half < 2; ++half) {
    const std::uint32_t one = first_number + 2 * half;
    const std::uint32_t start = one * bits / 8;
    g.pair[half] = start;
    for (std::uint32_t j = 0; j < 2; ++j) {
      const std::uint32_t at = (one + j) * bits;
      g.shift[2 * half + j] = at % 8;
      for (std::uint32_t byte = 0; byte < 8; ++byte) {
        const std::uint32_t from = at / 8 - start + byte;
        g.index[16 * half + 8 * j + byte] = static_cast<std::uint8_t>(from < 16 ? from : 0x80);
      }
    }
  }
  return g;
}

struct Gathers {
  Gather of[kMaxBits + 1][2];
  constexpr Gathers() : of{} {
    for (std::uint32_t bits = kMinBits; bits <= kMaxBits; ++bits) {
      of[bits][0] = make_gather(bits, 0);
      of[bits][1] = make_gather(bits, 4);
    }
  }
};

constexpr Gathers kGathers;

/// Four numbers of a group of eight that starts at `in`.
inline __m256i gather(const std::uint8_t* in, const Gather& g) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + g.pair[0]));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + g.pair[1]));
  const __m256i index = _mm256_load_si256(reinterpret_cast<const __m256i*>(g.index));
  const __m256i shift = _mm256_load_si256(reinterpret_cast<const __m256i*>(g.shift));
  return _mm256_srlv_epi64(_mm256_shuffle_epi8(_mm256_set_m128i(high, low), index), shift);
}

inline void unpack_group(const std::uint8_t* in, const Gather* g, __m256i mask,
                         std::uint64_t* out) {
  const __m256i low = _mm256_and_si256(gather(in, g[0]), mask);
  const __m256i high = _mm256_and_si256(gather(in, g[1]), mask);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4), high);
}

template <std::uint32_t bits>
void pack(const std::uint64_t* x, std::size_t n, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; i += 8, out += bits) {
    std::uint64_t buffer = 0;
    std::uint32_t filled = 0;
    std::uint32_t at = 0;
#pragma GCC unroll 8
    for (std::uint32_t j = 0; j < 8; ++j) {
      const std::uint64_t value = x[i + j];
      buffer |= value << filled;
      filled += bits;
      if (filled >= 64) {
        __builtin_memcpy(out + at, &buffer, 8);
        at += 8;
        filled -= 64;
        buffer = filled == 0 ? 0 : value >> (bits - filled);
      }
    }
    __builtin_memcpy(out + at, &buffer, bits % 8);  // 8 numbers end at a byte
  }
}

using Pack = void (*)(const std::uint64_t*, std::size_t, std::uint8_t*);

struct Packs {
  Pack of[kMaxBits + 1];
  template <std::uint32_t bits>
  constexpr void fill() {
    of[bits] = pack<bits>;
    if constexpr (bits < kMaxBits) fill<bits + 1>();
  }

  constexpr Packs() : of{} { fill<kMinBits>(); }  // after fill: clang knows no later bodies here
};

constexpr Packs kPacks;

}  // namespace

void pack_bits(const std::uint64_t* x, std::size_t n, std::uint32_t bits, std::uint8_t* out) {
  if (bits < kMinBits || bits > kMaxBits) {
    portable_kernels()->pack_bits(x, n, bits, out);
    return;
  }
  kPacks.of[bits](x, n, out);
}

void unpack_bits(const std::uint8_t* in, std::size_t n, std::uint32_t bits, std::uint64_t* out) {
  if (bits < kMinBits || bits > kMaxBits) {
    portable_kernels()->unpack_bits(in, n, bits, out);
    return;
  }
  const Gather* g = kGathers.of[bits];
  const __m256i mask = _mm256_set1_epi64x((1LL << bits) - 1);
  // A group reads 16 bytes from its last pair on; the last groups do so in a copy.
  const std::size_t total = n / 8 * bits;
  const std::size_t reach = g[1].pair[1] + 16;
  std::size_t i = 0;
  std::size_t at = 0;
  for (; at + reach <= total; i += 8, at += bits) unpack_group(in + at, g, mask, out + i);
  std::uint8_t last[2 * kMaxBits + 16] = {};
  for (std::size_t k = at; k < total; ++k) last[k - at] = in[k];
  const std::size_t begin = at;
  for (; i < n; i += 8, at += bits) unpack_group(last + (at - begin), g, mask, out + i);
}

namespace {

inline __m256i load(const std::uint64_t* x) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}

/// Four elements of `sum` more or less by x where x < p; `below` collects whether all are. All numbers
/// are below 2^62, so that signed comparisons hold.
template <bool negative>
inline void add_below(std::uint64_t* sum, __m256i x, __m256i p, __m256i& below) {
  const __m256i fits = _mm256_cmpgt_epi64(p, x);
  below = _mm256_and_si256(below, fits);
  const __m256i value = _mm256_and_si256(x, fits);
  const __m256i reduced = negative ? _mm256_sub_epi64(load(sum), value)
                                   : _mm256_sub_epi64(_mm256_add_epi64(load(sum), value), p);
  // In [-p, p).
  const __m256i lift = _mm256_and_si256(_mm256_cmpgt_epi64(_mm256_setzero_si256(), reduced), p);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sum), _mm256_add_epi64(reduced, lift));
}

template <bool negative>
bool add_bits_by(const std::uint8_t* in, std::size_t n, std::uint64_t* sum,
                 const Modulus& modulus) {
  const std::uint32_t bits = modulus.bits;
  const Gather* g = kGathers.of[bits];
  const __m256i mask = _mm256_set1_epi64x((1LL << bits) - 1);
  const __m256i p = _mm256_set1_epi64x(static_cast<long long>(modulus.p));
  const std::size_t total = n / 8 * bits;
  const std::size_t reach = g[1].pair[1] + 16;
  __m256i below = _mm256_set1_epi64x(-1);
  std::size_t i = 0;
  std::size_t at = 0;
  const auto add_group = [&](const std::uint8_t* group) {
    add_below<negative>(sum + i, _mm256_and_si256(gather(group, g[0]), mask), p, below);
    add_below<negative>(sum + i + 4, _mm256_and_si256(gather(group, g[1]), mask), p, below);
  };
  for (; at + reach <= total; i += 8, at += bits) add_group(in + at);
  std::uint8_t last[2 * kMaxBits + 16] = {};
  for (std::size_t k = at; k < total; ++k) last[k - at] = in[k];
  const std::size_t begin = at;
  for (; i < n; i += 8, at += bits) add_group(last + (at - begin));
  // What was read may be a secret mask: do not leave it on the stack.
  __builtin_memset(last, 0, sizeof(last));
  asm volatile("" : : "r"(last) : "memory");
  int all = _mm256_movemask_pd(_mm256_castsi256_pd(below));
  QUANCRYPT_DECLASSIFY(large_draw, &all, sizeof(all));
  return all == 0xF;
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

}  // namespace quancrypt::simd::avx2
