// The one table of kernels: every hot loop of the library, its signature and the ranges it keeps.
//
// A set of kernels (portable, avx2, avx512) fills the table; dispatch.cpp chooses one set at load.
// Files for one instruction set include <cstdint>, <cstddef>, their intrinsics and this header only,
// take raw pointers, and keep helpers in an anonymous namespace, so that no inline function compiled
// with wider instructions can become the copy that the linker keeps for everybody.
//
// Buffers may have any alignment. `n` is a multiple of 8 unless a kernel says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quancrypt::simd {

/// A prime p < 2^60 with floor(2^128 / p) for Barrett reduction.
struct Modulus {
  std::uint64_t p;
  std::uint64_t ratio_lo;
  std::uint64_t ratio_hi;
  std::uint32_t bits;  ///< ceil(log2 p): the width of a residue on the wire
};

/// Twiddle factors of the negacyclic NTT modulo one prime, bit-reversed order (Longa, Naehrig,
/// "Speeding up the Number Theoretic Transform", CANS 2016, algorithms 1 and 2; the same order as
/// Microsoft SEAL). *_shoup[i] = floor(root[i] * 2^64 / p) (Harvey 2014, arXiv 1205.2926).
struct NttTable {
  Modulus modulus;
  std::uint32_t log_n;
  const std::uint64_t* root;
  const std::uint64_t* root_shoup;
  const std::uint64_t* inverse_root;
  const std::uint64_t* inverse_root_shoup;
  std::uint64_t inverse_n;
  std::uint64_t inverse_n_shoup;
  /// The same factors for arithmetic in double, p < 2^50 only (else null): real[i] is root[i] taken
  /// into (-p/2, p/2), ratio[i] = real[i] / p rounded to nearest (van der Hoeven, Lecerf, Quintin:
  /// "Modular SIMD arithmetic in Mathemagix", ACM TOMS 2016, section 3).
  const double* real;
  const double* ratio;
  const double* inverse_real;
  const double* inverse_ratio;
  double inverse_n_real;
  double inverse_n_ratio;
};

/// How unsigned fields lie in one big coefficient, and how it splits into residues.
/// Coefficient = sum over f of field[f] * 2^(guard_bits + field_bits * f).
struct PackTable {
  std::uint32_t primes;  ///< data primes, each below 2^50
  std::uint32_t fields;  ///< per coefficient
  std::uint32_t field_bits;
  std::uint32_t guard_bits;
  std::uint32_t limbs;                ///< 64-bit words of a coefficient, at most kMaxLimbs
  const Modulus* modulus;             ///< [primes]
  const std::uint64_t* limb_power;    ///< [primes][limbs]: 2^(64 l) mod p
  const std::uint64_t* garner;        ///< [primes][primes]: at [i][j], j < i: p_j^-1 mod p_i
  const std::uint64_t* garner_shoup;  ///< floor(garner * 2^64 / p_i)
};

/// Roots of the slot encoding's complex transform, ring degree N = 2 half; see simd/slot_transform.h.
struct SlotTable {
  std::size_t half;
  std::size_t span_count;  ///< half / 8 - 1
  const double* row_re;    ///< [7][half / 8]: layers of gap 1 (4 rows), 2 (2 rows) and 4 (1 row)
  const double* row_im;
  const double* span_re;  ///< [span_count]: layers of gap 8, 16, ..., half / 2, block after block
  const double* span_im;
  double last_im;  ///< imaginary part of the last layer's root
};

/// What a valid sum may look like; anything else is reported by unpack_fields.
struct SumLimits {
  std::uint64_t field_max;  ///< weight * 2 * q_max, below 2^32
  std::uint64_t noise_max;  ///< weight * fresh noise bound, below 2^(guard_bits - 1)
};

/// Primes of packed encoding. Below 2^50 lazy values up to 4 p are exact in the 52-bit products of
/// AVX-512 IFMA and in a double.
inline constexpr std::uint32_t kSmallPrimeBits = 50;
inline constexpr std::size_t kMaxLimbs = 16;
inline constexpr std::size_t kMaxPrimes = 64;
inline constexpr std::size_t kChaChaBlock = 64;

struct KernelTable {
  const char* name;

  /// x[n], n = 2^log_n >= 32: coefficients in [0, p), natural order -> evaluations in [0, p),
  /// bit-reversed order. In place.
  void (*ntt_forward)(std::uint64_t* x, const NttTable& table);
  /// The inverse, 1/n included. [0, p) -> [0, p), in place.
  void (*ntt_inverse)(std::uint64_t* x, const NttTable& table);

  /// out = c + a * b mod p; all in [0, p). out may be any of the inputs.
  void (*multiply_add)(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                       const std::uint64_t* c, std::size_t n, const Modulus& modulus);
  /// out = c - a * b mod p; all in [0, p).
  void (*multiply_subtract)(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                            const std::uint64_t* c, std::size_t n, const Modulus& modulus);
  /// sum = sum + x mod p; both in [0, p).
  void (*add)(std::uint64_t* sum, const std::uint64_t* x, std::size_t n, const Modulus& modulus);
  /// sum = sum + weight * x mod p; x in [0, p) or below 2^50, weight in [0, p), weight_shoup =
  /// floor(weight * 2^64 / p).
  void (*scale_add)(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
                    std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus);
  /// x = (x - y) weight mod p; x, y in [0, p), weight as in scale_add.
  void (*subtract_scale)(std::uint64_t* x, const std::uint64_t* y, std::uint64_t weight,
                         std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus);
  /// out = (x mod p) - offset mod p; |x| < 2^63, offset in [0, p). out may be x's memory.
  void (*remainder)(std::uint64_t* out, const std::int64_t* x, std::uint64_t offset, std::size_t n,
                    const Modulus& modulus);
  /// x = e mod p; |e| < p.
  void (*lift_small)(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus);
  /// x = x - e mod p; x in [0, p), |e| < p.
  void (*subtract_small)(std::uint64_t* x, const std::int8_t* e, std::size_t n,
                         const Modulus& modulus);

  /// RFC 8439 ChaCha20 key stream: `blocks` blocks of 64 bytes from block `counter` on.
  /// counter + blocks <= 2^32.
  void (*chacha20)(const std::uint8_t key[32], const std::uint8_t nonce[12], std::uint32_t counter,
                   std::uint8_t* out, std::size_t blocks);
  /// Centred binomial of 21 + 21 bits: variance 10.5, |e| <= 21. Reads 6 bytes an element, the bits
  /// that SEAL's sample_poly_cbd reads.
  void (*sample_centred_binomial)(const std::uint8_t* random, std::int8_t* out, std::size_t n);
  /// floor(3 r / 2^32) - 1 for each little-endian 32-bit r != 0 (Lemire's method: r = 0 is the one
  /// rejected draw). Returns the index of the first r = 0, or n. Any n.
  std::size_t (*sample_ternary)(const std::uint8_t* random, std::int8_t* out, std::size_t n);

  /// out[i] = clamp(round(clip(x[i], +-clip) * scale), +-q_max) + q_max, in [0, 2 q_max].
  /// Nearest, ties to even, in the arithmetic of the input's type. `dither` not null: stochastic,
  /// floor(x * scale + dither / 2^32) in double. Any n. Returns the index of the first NaN or
  /// infinity, or n; out is unspecified from there on.
  std::size_t (*quantize_f32)(const float* x, std::size_t n, float clip, float scale,
                              std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out);
  std::size_t (*quantize_f64)(const double* x, std::size_t n, double clip, double scale,
                              std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out);
  /// fields[f * n + c] < 2^16 -> residues[i * n + c] in [0, p_i).
  void (*pack_fields)(const std::uint16_t* fields, std::size_t n, const PackTable& table,
                      std::uint64_t* residues);
  /// residues[i * n + c] in [0, p_i) -> fields[f * n + c], noise rounded off. False if any
  /// coefficient is not a valid sum (field, noise or high bits beyond the limits).
  bool (*unpack_fields)(const std::uint64_t* residues, std::size_t n, const PackTable& table,
                        const SumLimits& limits, std::uint32_t* fields);
  /// out[i] = (fields[i] - offset) * factor. Any n.
  void (*dequantize)(const std::uint32_t* fields, std::size_t n, std::int64_t offset, double factor,
                     float* out);

  /// Real slot values in "rows" order -> 2 half coefficients times N `factor`; not yet rounded.
  void (*slots_to_coefficients)(const double* rows, const SlotTable& table, double factor,
                                double* coefficients);
  /// 2 half coefficients (overwritten) -> real parts of the slots, in "rows" order.
  void (*coefficients_to_slots)(double* coefficients, const SlotTable& table, double* rows);
  /// Half away from zero. x is finite. False if some |x| >= 2^62: out is unspecified then.
  bool (*round_to_integers)(const double* x, std::size_t n, std::int64_t* out);

  /// x[n], each below 2^bits -> n * bits / 8 bytes, little-endian bit order, 1 <= bits <= 60.
  void (*pack_bits)(const std::uint64_t* x, std::size_t n, std::uint32_t bits, std::uint8_t* out);
  void (*unpack_bits)(const std::uint8_t* in, std::size_t n, std::uint32_t bits,
                      std::uint64_t* out);
  /// sum = sum + x mod p, or sum - x, for the numbers x that unpack_bits reads with p's width. Elements
  /// where x is not below p stay as they are. Returns whether there is none: what else is told of x is
  /// told by no branch and no address.
  bool (*add_bits)(const std::uint8_t* in, std::size_t n, bool negative, std::uint64_t* sum,
                   const Modulus& modulus);
  /// Index of the first element >= bound, or n. Any n. Variable time: for public numbers only.
  std::size_t (*find_not_below)(const std::uint64_t* x, std::size_t n, std::uint64_t bound);
  /// CRC-32C (Castagnoli, RFC 3720 appendix B.4) continued from `crc` (0 at the start). Any size.
  std::uint32_t (*crc32c)(std::uint32_t crc, const std::uint8_t* data, std::size_t size);
};

/// The sets that this library holds; a set for another architecture is not linked.
const KernelTable* portable_kernels();
const KernelTable* avx2_kernels();
const KernelTable* avx512_kernels();

}  // namespace quancrypt::simd
