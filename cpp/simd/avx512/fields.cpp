// Fields <-> residues in 52-bit words. As many fields as fit 52 bits form a chunk; a coefficient is
// the sum of chunk_j * 2^(guard_bits + j * chunk bits).
#include "simd/avx512/avx512.h"
#include "simd/avx512/modular.h"

namespace quancrypt::simd::avx512 {
namespace {

constexpr std::size_t kMaxChunks = 64;
constexpr std::uint32_t kMaxWords = 20;  // of 52 bits: kMaxLimbs * 64 / 52, rounded up
constexpr std::uint32_t kMaxFields = 256;
constexpr std::size_t kGroup = 4;  // chunks whose high products sum below 2^52

/// floor(w 2^52 / p), w < p < 2^50, without a 128-bit division: long division bit by bit.
std::uint64_t make_shoup(std::uint64_t w, std::uint64_t p) {
  std::uint64_t quotient = 0;
  for (int bit = 0; bit < 52; ++bit) {
    w <<= 1;
    quotient <<= 1;
    if (w >= p) {
      w -= p;
      quotient |= 1;
    }
  }
  return quotient;
}

/// 2^exponent mod p, p < 2^50.
std::uint64_t power_of_two(std::uint32_t exponent, std::uint64_t p) {
  std::uint64_t result = 1 % p;
  for (std::uint32_t i = 0; i < exponent; ++i) {
    result <<= 1;
    if (result >= p) result -= p;
  }
  return result;
}

/// What Reducer needs, found once a call: make_shoup is a slow division.
struct ReducerConstants {
  std::uint64_t p, one_shoup, word, word_shoup;

  ReducerConstants() = default;
  explicit ReducerConstants(std::uint64_t prime)
      : p(prime),
        one_shoup(make_shoup(1, p)),
        word(power_of_two(52, p)),
        word_shoup(make_shoup(word, p)) {}
};

/// Reduction of one-word and two-word numbers modulo one prime.
struct Reducer {
  Small m;
  __m512i one_shoup, word, word_shoup;

  explicit Reducer(const ReducerConstants& c)
      : m(c.p),
        one_shoup(broadcast(c.one_shoup)),
        word(broadcast(c.word)),
        word_shoup(broadcast(c.word_shoup)) {}

  /// x < 2^52 -> x mod p in [0, 2p).
  [[nodiscard]] __m512i lazy(__m512i x) const {
    const __m512i q = _mm512_madd52hi_epu64(_mm512_setzero_si512(), x, one_shoup);
    return _mm512_and_si512(_mm512_madd52lo_epu64(x, q, m.minus_p), m.mask);
  }

  /// high 2^52 + low -> [0, p); low < 2^55, high + low / 2^52 < 2^52.
  [[nodiscard]] __m512i two_words(__m512i high, __m512i low) const {
    const __m512i top = _mm512_add_epi64(high, _mm512_srli_epi64(low, 52));
    const __m512i r = _mm512_add_epi64(m.multiply(top, word, word_shoup),
                                       lazy(_mm512_and_si512(low, m.mask)));  // [0, 4p)
    return m.finish(r);
  }
};

inline __m512i load_fields(const std::uint16_t* x) {
  return _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

// Piece by piece, so that the chunks stay in the L1 cache while the primes go by.
constexpr std::size_t kPiece = 64;

/// sum over j of chunk[j][c] power[j] modulo p, for `kChunks` <= kGroup chunks.
template <std::uint32_t kChunks>
void combine(const std::uint64_t* chunk, const std::uint64_t* power, std::size_t width,
             const Reducer& reducer, std::uint64_t* out) {
  __m512i w[kChunks];
  for (std::uint32_t j = 0; j < kChunks; ++j) w[j] = broadcast(power[j]);
  for (std::size_t c = 0; c < width; c += 8) {
    __m512i low = _mm512_setzero_si512();
    __m512i high = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (std::uint32_t j = 0; j < kChunks; ++j) {
      const __m512i x = load(chunk + j * kPiece + c);
      low = _mm512_madd52lo_epu64(low, x, w[j]);
      high = _mm512_madd52hi_epu64(high, x, w[j]);
    }
    store(out + c, reducer.two_words(high, low));
  }
}

void combine_many(const std::uint64_t* chunk, std::uint32_t chunks, const std::uint64_t* power,
                  std::size_t width, const Reducer& reducer, std::uint64_t* out) {
  for (std::size_t c = 0; c < width; c += 8) {
    __m512i sum = _mm512_setzero_si512();
    for (std::uint32_t group = 0; group < chunks; group += kGroup) {
      __m512i low = _mm512_setzero_si512();
      __m512i high = _mm512_setzero_si512();
      const std::uint32_t end = group + kGroup < chunks ? group + kGroup : chunks;
      for (std::uint32_t j = group; j < end; ++j) {
        const __m512i x = load(chunk + j * kPiece + c);
        const __m512i w = broadcast(power[j]);
        low = _mm512_madd52lo_epu64(low, x, w);
        high = _mm512_madd52hi_epu64(high, x, w);
      }
      sum = reduce_once(_mm512_add_epi64(sum, reducer.two_words(high, low)), reducer.m.p);
    }
    store(out + c, sum);
  }
}

/// Where a field lies in words of 52 bits: bits from `word` on, the rest from the next word.
struct Place {
  std::uint32_t word;
  bool straddles;
  __m128i right, left;
};

inline __m128i count(std::uint32_t bits) { return _mm_cvtsi32_si128(static_cast<int>(bits)); }

/// unpack_fields for `kCapacity` primes, or up to kMaxWords of them: p_i < 2^52, so as many words of
/// 52 bits as primes hold the value.
template <std::uint32_t kCapacity>
bool unpack(const std::uint64_t* residues, std::size_t n, const PackTable& table,
            const SumLimits& limits, std::uint32_t* fields) {
  const std::uint32_t primes = kCapacity == kMaxWords ? table.primes : kCapacity;
  const std::uint64_t half_value = std::uint64_t{1} << (table.guard_bits - 1);
  std::uint64_t half[kCapacity];  // half_value < 2^51 may be above p
  for (std::uint32_t i = 0; i < primes; ++i) half[i] = half_value % table.modulus[i].p;
  Place places[kMaxFields];
  for (std::uint32_t f = 0; f < table.fields; ++f) {
    const std::uint32_t at = table.guard_bits + f * table.field_bits;
    const std::uint32_t bit = at % 52;
    places[f] = {at / 52, bit + table.field_bits > 52, count(bit), count(52 - bit)};
  }
  const std::uint32_t top_bit = table.guard_bits + table.fields * table.field_bits;
  const __m512i word_mask = broadcast((std::uint64_t{1} << 52) - 1);
  const __m512i guard_mask = broadcast((std::uint64_t{1} << table.guard_bits) - 1);
  const __m512i field_mask = broadcast((std::uint64_t{1} << table.field_bits) - 1);
  const __m512i field_max = broadcast(limits.field_max);
  // (noise mod 2^g) - half + noise_max must lie in [0, 2 noise_max].
  const __m512i noise_offset = broadcast(limits.noise_max - half_value);
  const __m512i noise_span = broadcast(2 * limits.noise_max);
  __mmask8 violation = 0;
  // The coefficients c .. c + 7 in words of 52 bits; word[primes] is zero.
  const auto assemble = [&](std::size_t c, __m512i* word) {
    __m512i digit[kCapacity];
#pragma GCC unroll 4
    for (std::uint32_t i = 0; i < primes; ++i) {
      const Small m(table.modulus[i].p);
      const __m512i one_shoup = broadcast(shoup52(table.modulus[i].ratio_hi));  // floor(2^52 / p)
      const std::uint64_t* inverse = table.garner + std::size_t{i} * primes;
      const std::uint64_t* inverse_shoup = table.garner_shoup + std::size_t{i} * primes;
      __m512i d =
          reduce_once(_mm512_add_epi64(load(residues + i * n + c), broadcast(half[i])), m.p);
#pragma GCC unroll 4
      for (std::uint32_t j = 0; j < i; ++j) {
        const __m512i q = _mm512_madd52hi_epu64(_mm512_setzero_si512(), digit[j], one_shoup);
        const __m512i other =
            _mm512_and_si512(_mm512_madd52lo_epu64(digit[j], q, m.minus_p), m.mask);  // [0, 2p)
        d = _mm512_add_epi64(d, _mm512_sub_epi64(m.bound, other));                    // (0, 4p)
        d = m.multiply(d, broadcast(inverse[j]), broadcast(shoup52(inverse_shoup[j])));
      }
      digit[i] = reduce_once(d, m.p);
    }
    // Horner: word = word * p + digit; after step s the value has s + 1 words.
    for (std::uint32_t l = 0; l <= primes; ++l) word[l] = _mm512_setzero_si512();
    word[0] = digit[primes - 1];
#pragma GCC unroll 4
    for (std::uint32_t step = 1; step < primes; ++step) {
      const std::uint32_t i = primes - 1 - step;
      const __m512i p = broadcast(table.modulus[i].p);
      __m512i carry = digit[i];
#pragma GCC unroll 4
      for (std::uint32_t l = 0; l <= step; ++l) {
        const __m512i low = _mm512_madd52lo_epu64(carry, word[l], p);  // below 2^54
        carry = _mm512_madd52hi_epu64(_mm512_srli_epi64(low, 52), word[l], p);
        word[l] = _mm512_and_si512(low, word_mask);
      }
    }
    const __m512i noise = _mm512_add_epi64(_mm512_and_si512(word[0], guard_mask), noise_offset);
    violation |= _mm512_cmpgt_epu64_mask(noise, noise_span);
    // Nothing may stand above the last field.
    __m512i above = _mm512_srl_epi64(word[top_bit / 52], count(top_bit % 52));
    for (std::uint32_t l = top_bit / 52 + 1; l < primes; ++l) {
      above = _mm512_or_si512(above, word[l]);
    }
    violation |= _mm512_test_epi64_mask(above, above);
  };
  const auto extract = [&](const __m512i* word, const Place& place) {
    __m512i field = _mm512_srl_epi64(word[place.word], place.right);
    if (place.straddles) {
      field = _mm512_or_si512(field, _mm512_sll_epi64(word[place.word + 1], place.left));
    }
    field = _mm512_and_si512(field, field_mask);
    violation |= _mm512_cmpgt_epu64_mask(field, field_max);
    return _mm512_cvtepi64_epi32(field);
  };
  std::size_t c = 0;
  __m512i one[kCapacity + 1];
  __m512i two[kCapacity + 1];
  // Sixteen at a time fill whole cache lines: the rows of fields lie a power of two apart, in the same
  // few sets of the cache, and half a line would be gone before its other half comes.
  for (; c + 16 <= n; c += 16) {
    assemble(c, one);
    assemble(c + 8, two);
    for (std::uint32_t f = 0; f < table.fields; ++f) {
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(extract(one, places[f])),
                                              extract(two, places[f]), 1);
      _mm512_storeu_si512(fields + f * n + c, both);
    }
  }
  for (; c < n; c += 8) {
    assemble(c, one);
    for (std::uint32_t f = 0; f < table.fields; ++f) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(fields + f * n + c), extract(one, places[f]));
    }
  }
  return violation == 0;
}

}  // namespace

void pack_fields(const std::uint16_t* fields, std::size_t n, const PackTable& table,
                 std::uint64_t* residues) {
  const std::uint32_t per_chunk = 52 / table.field_bits;
  const std::uint32_t chunks = (table.fields + per_chunk - 1) / per_chunk;
  if (chunks > kMaxChunks) {
    portable_kernels()->pack_fields(fields, n, table, residues);
    return;
  }
  std::uint64_t power[kMaxPrimes][kMaxChunks];
  ReducerConstants constants[kMaxPrimes];
  for (std::uint32_t i = 0; i < table.primes; ++i) {
    constants[i] = ReducerConstants(table.modulus[i].p);
    for (std::uint32_t j = 0; j < chunks; ++j) {
      power[i][j] =
          power_of_two(table.guard_bits + j * per_chunk * table.field_bits, table.modulus[i].p);
    }
  }
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(table.field_bits));
  alignas(64) std::uint64_t chunk[kMaxChunks * kPiece];
  for (std::size_t piece = 0; piece < n; piece += kPiece) {
    const std::size_t width = n - piece < kPiece ? n - piece : kPiece;
    for (std::uint32_t j = 0; j < chunks; ++j) {
      const std::uint32_t first = j * per_chunk;
      const std::uint32_t last =
          (first + per_chunk < table.fields ? first + per_chunk : table.fields) - 1;
      for (std::size_t c = 0; c < width; c += 8) {
        const std::uint16_t* at = fields + piece + c;
        __m512i sum = load_fields(at + last * n);
        for (std::uint32_t f = last; f-- > first;) {
          sum = _mm512_or_si512(_mm512_sll_epi64(sum, shift), load_fields(at + f * n));
        }
        store(chunk + j * kPiece + c, sum);
      }
    }
    for (std::uint32_t i = 0; i < table.primes; ++i) {
      const Reducer reducer(constants[i]);
      std::uint64_t* out = residues + i * n + piece;
      switch (chunks) {
        case 1:
          combine<1>(chunk, power[i], width, reducer, out);
          break;
        case 2:
          combine<2>(chunk, power[i], width, reducer, out);
          break;
        case 3:
          combine<3>(chunk, power[i], width, reducer, out);
          break;
        case 4:
          combine<4>(chunk, power[i], width, reducer, out);
          break;
        default:
          combine_many(chunk, chunks, power[i], width, reducer, out);
      }
    }
  }
}

bool unpack_fields(const std::uint64_t* residues, std::size_t n, const PackTable& table,
                   const SumLimits& limits, std::uint32_t* fields) {
  if (table.guard_bits >= 52 || table.primes > kMaxWords || table.fields > kMaxFields) {
    return portable_kernels()->unpack_fields(residues, n, table, limits, fields);
  }
  switch (table.primes) {
    case 1:
      return unpack<1>(residues, n, table, limits, fields);
    case 2:
      return unpack<2>(residues, n, table, limits, fields);
    case 3:
      return unpack<3>(residues, n, table, limits, fields);
    case 4:
      return unpack<4>(residues, n, table, limits, fields);
    default:
      return unpack<kMaxWords>(residues, n, table, limits, fields);
  }
}

}  // namespace quancrypt::simd::avx512
