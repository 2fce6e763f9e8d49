#include "packing/slots.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>

#include "simd/arith.h"
#include "simd/dispatch.h"

namespace quancrypt {
namespace {

constexpr std::size_t kRows = 8;  // of "rows" order

/// exp(2 pi i k / count), count a power of two from 8 up: an eighth by the library's functions, the
/// rest by symmetry, as in SEAL.
std::complex<double> root_of_unity(std::size_t k, std::size_t count) {
  k &= count - 1;
  if (k <= count / 8) {
    constexpr double kPi = 3.1415926535897932384626433832795028842;
    return std::polar<double>(1.0, 2 * kPi * static_cast<double>(k) / static_cast<double>(count));
  }
  if (k <= count / 4) {
    const std::complex<double> mirrored = root_of_unity(count / 4 - k, count);
    return {mirrored.imag(), mirrored.real()};
  }
  if (k <= count / 2) return -std::conj(root_of_unity(count / 2 - k, count));
  if (k <= count - count / 4) return -root_of_unity(k - count / 2, count);
  return std::conj(root_of_unity(count - k, count));
}

/// |x| >= 2^62, rounded, modulo p: the 53 bits of its mantissa times a power of two.
std::uint64_t reduce_large(double x, const Modulus& modulus) {
  int exponent = 0;
  const double mantissa = std::frexp(std::fabs(x), &exponent);  // [1/2, 1)
  const auto digits = static_cast<std::uint64_t>(std::ldexp(mantissa, 53));
  const std::uint64_t power = power_mod(2, static_cast<std::uint64_t>(exponent - 53), modulus);
  const std::uint64_t r = simd::multiply_mod(simd::reduce_128(digits, modulus), power, modulus);
  return x < 0 && r != 0 ? modulus.p - r : r;
}

}  // namespace

SlotLayout::SlotLayout(const RnsRing& ring, std::size_t primes, unsigned scale_bits)
    : scale_(std::ldexp(1.0, static_cast<int>(scale_bits))),
      moduli_(ring.moduli().begin(), ring.moduli().begin() + static_cast<std::ptrdiff_t>(primes)),
      garner_(primes * primes),
      table_{} {
  for (std::size_t i = 0; i < primes; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      garner_[i * primes + j] = inverse_mod(moduli_[j].p % moduli_[i].p, moduli_[i]);
    }
  }
  const std::size_t n = ring.degree();
  const std::size_t h = n / 2;
  const std::size_t columns = h / kRows;
  const auto log_n = static_cast<std::uint32_t>(std::countr_zero(n));
  std::size_t power = 1;  // slot v belongs to the root with exponent 3^v
  for (std::size_t v = 0; v < h; ++v) {
    std::size_t position = reverse_bits((power - 1) >> 1, log_n);
    if (position >= h) position = n - 1 - position;  // the mirrored conjugate
    place_.push_back(static_cast<std::uint32_t>(position % kRows * columns + position / kRows));
    power = power * 3 & (2 * n - 1);
  }
  // Block `block` of the layer with this gap (the last layer: n / 2).
  const auto root = [&](std::size_t gap, std::size_t block) {
    const std::size_t index = n - n / gap + block;
    return std::conj(root_of_unity(reverse_bits(index, log_n) + 1, 2 * n));
  };
  std::vector<std::complex<double>> rows;
  for (std::size_t gap = 1; gap < kRows; gap *= 2) {
    const std::size_t blocks = kRows / (2 * gap);  // in a column
    for (std::size_t block = 0; block < blocks; ++block) {
      for (std::size_t c = 0; c < columns; ++c) rows.push_back(root(gap, blocks * c + block));
    }
  }
  std::vector<std::complex<double>> spans;
  for (std::size_t gap = kRows; gap < h; gap *= 2) {
    for (std::size_t block = 0; block < h / (2 * gap); ++block) spans.push_back(root(gap, block));
  }
  for (const auto* list : {&rows, &spans}) {
    for (const std::complex<double>& w : *list) roots_.push_back(w.real());
    for (const std::complex<double>& w : *list) roots_.push_back(w.imag());
  }
  table_ = {.half = h,
            .span_count = spans.size(),
            .row_re = roots_.data(),
            .row_im = roots_.data() + rows.size(),
            .span_re = roots_.data() + 2 * rows.size(),
            .span_im = roots_.data() + 2 * rows.size() + spans.size(),
            .last_im = root(h, 0).imag()};
}

SlotSource::SlotSource(const SlotLayout& layout, const double* values, std::size_t count,
                       std::size_t workers)
    : layout_(layout), values_(values), count_(count), workspaces_(workers) {}

void SlotSource::fill(std::size_t index, std::size_t worker, std::uint64_t* residues) {
  const std::size_t slots = layout_.slots();
  const std::size_t n = 2 * slots;
  Workspace& w = workspaces_[worker];
  if (w.rows.size() == 0) {
    w.rows = SecureBuffer<double>(slots);
    w.coefficients = SecureBuffer<double>(n);
    w.integers = SecureBuffer<std::int64_t>(n);
  }
  const std::size_t begin = index * slots;
  const std::size_t used = std::min(slots, count_ - begin);
  if (used < slots) std::fill_n(w.rows.data(), slots, 0.0);
  for (std::size_t v = 0; v < used; ++v) w.rows[layout_.place(v)] = values_[begin + v];
  const simd::KernelTable& kernels = simd::kernels();
  const std::vector<Modulus>& moduli = layout_.moduli();
  kernels.slots_to_coefficients(w.rows.data(), layout_.table(),
                                layout_.scale() / static_cast<double>(n), w.coefficients.data());
  const bool small = kernels.round_to_integers(w.coefficients.data(), n, w.integers.data());
  for (std::size_t i = 0; i < moduli.size(); ++i) {
    std::uint64_t* row = residues + i * n;
    if (small) {
      kernels.remainder(row, w.integers.data(), 0, n, moduli[i]);
      continue;
    }
    // Messages near the limit of the modulus; rare, and as slow as it is.
    for (std::size_t c = 0; c < n; ++c) {
      const double x = std::round(w.coefficients[c]);
      if (std::fabs(x) < 0x1p62) {
        const auto whole = static_cast<std::int64_t>(x);
        simd::portable_kernels()->remainder(row + c, &whole, 0, 1, moduli[i]);
      } else {
        row[c] = reduce_large(x, moduli[i]);
      }
    }
  }
}

SlotSink::SlotSink(const SlotLayout& layout, float* out, std::size_t count, double factor,
                   std::size_t workers)
    : layout_(layout), out_(out), count_(count), factor_(factor), workspaces_(workers) {}

void SlotSink::take(std::size_t index, std::size_t worker, std::uint64_t* residues) {
  const std::size_t slots = layout_.slots();
  const std::size_t n = 2 * slots;
  Workspace& w = workspaces_[worker];
  if (w.rows.size() == 0) {
    w.rows = SecureBuffer<double>(slots);
    w.coefficients = SecureBuffer<double>(n);
  }
  const std::vector<Modulus>& moduli = layout_.moduli();
  const std::size_t primes = moduli.size();
  for (std::size_t c = 0; c < n; ++c) {
    // Garner's digits in place: value = d_0 + p_0 (d_1 + p_1 (d_2 + ...)).
    for (std::size_t i = 1; i < primes; ++i) {
      std::uint64_t d = residues[i * n + c];
      for (std::size_t j = 0; j < i; ++j) {
        const std::uint64_t other = simd::reduce_128(residues[j * n + c], moduli[i]);
        d = simd::multiply_mod(simd::sub_mod(d, other, moduli[i].p), layout_.garner(i, j),
                               moduli[i]);
      }
      residues[i * n + c] = d;
    }
    // (Q - 1) / 2 has the digits (p_i - 1) / 2; above it the value stands for itself minus Q, and
    // Q - 1 - value has the digits p_i - 1 - d_i. No branch on a plaintext.
    std::uint64_t negative = 0;
    for (std::size_t i = 0; i < primes; ++i) {
      const std::uint64_t half = moduli[i].p >> 1;
      const std::uint64_t d = residues[i * n + c];
      negative =
          static_cast<std::uint64_t>(d > half) | (static_cast<std::uint64_t>(d == half) & negative);
    }
    const std::uint64_t flip = 0 - negative;
    double magnitude = 0;
    for (std::size_t i = primes; i-- > 0;) {
      const std::uint64_t d = residues[i * n + c];
      const std::uint64_t other = moduli[i].p - 1 - d;
      magnitude = magnitude * static_cast<double>(moduli[i].p) +
                  static_cast<double>(static_cast<std::int64_t>((d & ~flip) | (other & flip)));
    }
    magnitude += static_cast<double>(negative);
    const double sign = 1.0 - 2.0 * static_cast<double>(negative);
    w.coefficients[c] = sign * magnitude / layout_.scale();
  }
  simd::kernels().coefficients_to_slots(w.coefficients.data(), layout_.table(), w.rows.data());
  const std::size_t begin = index * slots;
  const std::size_t used = std::min(slots, count_ - begin);
  for (std::size_t v = 0; v < used; ++v) {
    out_[begin + v] = static_cast<float>(w.rows[layout_.place(v)] * factor_);
  }
}

}  // namespace quancrypt
