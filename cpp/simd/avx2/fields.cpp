// Fields <-> residues. As many fields as fit 50 bits form a chunk; a coefficient is the sum of
// chunk_j * 2^(guard_bits + j * chunk bits), each product reduced in doubles (real.h). Back, Garner's
// digits are found in doubles and put together in words of 26 bits.
#include "simd/avx2/avx2.h"
#include "simd/avx2/real.h"

namespace quancrypt::simd::avx2 {
namespace {

constexpr std::uint32_t kChunkBits = 50;
constexpr std::size_t kMaxChunks = 64;
constexpr std::size_t kGroup = 4;        // products of at most 5/8 p that sum below 4 p
constexpr std::size_t kMaxLimbs26 = 40;  // kMaxLimbs * 64 / 26, rounded up
constexpr std::size_t kMaxDigits = 20;

/// w in [0, p) as a centred factor with its ratio to p.
struct Factor {
  double w, ratio;
  Factor() = default;
  Factor(std::uint64_t value, std::uint64_t p)
      : w(value > p / 2 ? -static_cast<double>(p - value) : static_cast<double>(value)),
        ratio(w / static_cast<double>(p)) {}
};

/// 2^exponent mod p, p < 2^50.
std::uint64_t power_of_two(std::uint32_t exponent, std::uint64_t p) {
  std::uint64_t result = 1 % p;
  for (std::uint32_t i = 0; i < exponent; ++i) {
    result <<= 1;
    if (result >= p) result -= p;
  }
  return result;
}

inline __m256d times(__m256d x, const Factor& f, const Prime& m) {
  return multiply(x, _mm256_broadcast_sd(&f.w), _mm256_broadcast_sd(&f.ratio), m);
}

inline __m256i load_fields(const std::uint16_t* x) {
  return _mm256_cvtepu16_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
}

inline __m128i count(std::uint32_t bits) { return _mm_cvtsi32_si128(static_cast<int>(bits)); }

}  // namespace

void pack_fields(const std::uint16_t* fields, std::size_t n, const PackTable& table,
                 std::uint64_t* residues) {
  const std::uint32_t per_chunk = kChunkBits / table.field_bits;
  const std::uint32_t chunks = (table.fields + per_chunk - 1) / per_chunk;
  if (chunks > kMaxChunks) {
    portable_kernels()->pack_fields(fields, n, table, residues);
    return;
  }
  Factor power[kMaxPrimes][kMaxChunks];
  for (std::uint32_t i = 0; i < table.primes; ++i) {
    const std::uint64_t p = table.modulus[i].p;
    for (std::uint32_t j = 0; j < chunks; ++j) {
      power[i][j] = {power_of_two(table.guard_bits + j * per_chunk * table.field_bits, p), p};
    }
  }
  const __m128i shift = count(table.field_bits);
  // Piece by piece, so that the chunks stay in the L1 cache while the primes go by.
  constexpr std::size_t kPiece = 64;
  alignas(32) double chunk[kMaxChunks * kPiece];
  for (std::size_t piece = 0; piece < n; piece += kPiece) {
    const std::size_t width = n - piece < kPiece ? n - piece : kPiece;
    for (std::uint32_t j = 0; j < chunks; ++j) {
      const std::uint32_t first = j * per_chunk;
      const std::uint32_t last =
          (first + per_chunk < table.fields ? first + per_chunk : table.fields) - 1;
      for (std::size_t c = 0; c < width; c += 4) {
        const std::uint16_t* at = fields + piece + c;
        __m256i sum = load_fields(at + last * n);
        for (std::uint32_t f = last; f-- > first;) {
          sum = _mm256_or_si256(_mm256_sll_epi64(sum, shift), load_fields(at + f * n));
        }
        _mm256_store_pd(chunk + j * kPiece + c, to_real(sum));
      }
    }
    for (std::uint32_t i = 0; i < table.primes; ++i) {
      const Prime m(table.modulus[i].p);
      for (std::size_t c = 0; c < width; c += 4) {
        __m256d sum = _mm256_setzero_pd();
        for (std::uint32_t j = 0; j < chunks; ++j) {
          if (j % kGroup == 0 && j > 0) sum = reduce(sum, m);
          sum = _mm256_add_pd(sum, times(_mm256_load_pd(chunk + j * kPiece + c), power[i][j], m));
        }
        store(residues + i * n + piece + c, to_integer(lift(reduce(sum, m), m)));
      }
    }
  }
}

bool unpack_fields(const std::uint64_t* residues, std::size_t n, const PackTable& table,
                   const SumLimits& limits, std::uint32_t* fields) {
  const std::uint32_t primes = table.primes;
  const std::uint32_t top_bit = table.guard_bits + table.fields * table.field_bits;
  const std::uint32_t words = (64 * table.limbs + 51) / 52;
  if (table.guard_bits >= 52 || primes > kMaxDigits || 2 * words > kMaxLimbs26) {
    return portable_kernels()->unpack_fields(residues, n, table, limits, fields);
  }
  const std::uint64_t half_value = std::uint64_t{1} << (table.guard_bits - 1);
  Factor inverse[kMaxDigits][kMaxDigits];
  double half[kMaxDigits];
  for (std::uint32_t i = 0; i < primes; ++i) {
    const std::uint64_t p = table.modulus[i].p;
    half[i] = static_cast<double>(half_value % p);
    for (std::uint32_t j = 0; j < i; ++j) inverse[i][j] = {table.garner[i * primes + j], p};
  }
  const __m256i mask26 = broadcast((1U << 26) - 1);
  const __m256i guard_mask = broadcast((std::uint64_t{1} << table.guard_bits) - 1);
  const __m256i field_mask = broadcast((std::uint64_t{1} << table.field_bits) - 1);
  const __m256i field_max = broadcast(limits.field_max);
  // (noise mod 2^g) - half + noise_max must lie in [0, 2 noise_max].
  const __m256i noise_offset = broadcast(limits.noise_max - half_value);
  const __m256i noise_span = broadcast(2 * limits.noise_max);
  const __m256i zero = _mm256_setzero_si256();
  const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  __m256i violation = zero;
  __m256i beyond = zero;  // bits above the last field
  for (std::size_t c = 0; c < n; c += 4) {
    __m256d digit[kMaxDigits];
    for (std::uint32_t i = 0; i < primes; ++i) {
      const Prime m(table.modulus[i].p);
      __m256d d = _mm256_add_pd(load_real(residues + i * n + c), _mm256_set1_pd(half[i]));
      if (i == 0) d = normalize(d, m);  // [0, 2p)
      for (std::uint32_t j = 0; j < i; ++j) d = times(_mm256_sub_pd(d, digit[j]), inverse[i][j], m);
      digit[i] = lift(d, m);
    }
    // Horner in 26-bit limbs: value = value * p + digit; p = low + 2^26 high.
    __m256i limb[kMaxLimbs26 + 2];
    for (std::uint32_t l = 0; l < 2 * words + 2; ++l) limb[l] = zero;
    const __m256i top = to_integer(digit[primes - 1]);
    limb[0] = _mm256_and_si256(top, mask26);
    limb[1] = _mm256_srli_epi64(top, 26);
    std::uint32_t used = 2;
    for (std::uint32_t i = primes - 1; i-- > 0;) {
      const std::uint64_t p = table.modulus[i].p;
      const __m256i low = broadcast(p & ((1U << 26) - 1));
      const __m256i high = broadcast(p >> 26);
      __m256i carry = to_integer(digit[i]);  // below 2^50
      __m256i before = zero;                 // the limb below, as it was
      used = used + 2 < 2 * words ? used + 2 : 2 * words;
      for (std::uint32_t l = 0; l < used; ++l) {
        carry = _mm256_add_epi64(carry, _mm256_mul_epu32(limb[l], low));
        carry = _mm256_add_epi64(carry, _mm256_mul_epu32(before, high));  // below 2^54
        before = limb[l];
        limb[l] = _mm256_and_si256(carry, mask26);
        carry = _mm256_srli_epi64(carry, 26);
      }
    }
    __m256i word[kMaxLimbs26 / 2 + 1];
    for (std::uint32_t l = 0; l < words; ++l) {
      word[l] = _mm256_or_si256(limb[2 * l], _mm256_slli_epi64(limb[2 * l + 1], 26));
    }
    word[words] = zero;
    const __m256i noise = _mm256_add_epi64(_mm256_and_si256(word[0], guard_mask), noise_offset);
    violation = _mm256_or_si256(violation, _mm256_cmpgt_epi64(noise, noise_span));
    violation = _mm256_or_si256(violation, _mm256_cmpgt_epi64(zero, noise));
    std::uint32_t at = 0;                  // word
    std::uint32_t bit = table.guard_bits;  // inside the word, below 52
    for (std::uint32_t f = 0; f < table.fields; ++f) {
      __m256i field = _mm256_srl_epi64(word[at], count(bit));
      if (bit + table.field_bits > 52) {
        field = _mm256_or_si256(field, _mm256_sll_epi64(word[at + 1], count(52 - bit)));
      }
      field = _mm256_and_si256(field, field_mask);
      violation = _mm256_or_si256(violation, _mm256_cmpgt_epi64(field, field_max));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(fields + f * n + c),
                       _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(field, even)));
      bit += table.field_bits;
      if (bit >= 52) {
        bit -= 52;
        ++at;
      }
    }
    beyond = _mm256_or_si256(beyond, _mm256_srl_epi64(word[top_bit / 52], count(top_bit % 52)));
    for (std::uint32_t l = top_bit / 52 + 1; l < words; ++l)
      beyond = _mm256_or_si256(beyond, word[l]);
  }
  const __m256i invalid = _mm256_or_si256(violation, beyond);
  return _mm256_testz_si256(invalid, invalid) != 0;
}

}  // namespace quancrypt::simd::avx2
