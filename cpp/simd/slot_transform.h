// The transform between slots and coefficients (canonical embedding), in plain loops over separate
// real and imaginary parts that compilers vectorise; included once by each kernel set, with internal
// linkage, so that every set has its own copy for its instructions.
//
// It is the inverse (encoding) and forward (decoding) complex transform of size N over the primitive
// 2N-th root, in the order of Microsoft SEAL's encoder. Real messages make the values symmetric: the
// upper half is the mirrored conjugate of the lower half in every layer but the last. So only the
// lower half, h = N / 2 values, is computed, with the same operations on each value as in SEAL: the
// results are equal bit for bit (no fused multiply-adds: -ffp-contract=off).
//
// Positions are SEAL's bit-reversed ones. In "rows" position i stands at (i mod 8) (h / 8) + i / 8, so
// that the layers of gaps 1, 2 and 4 work on whole rows; after them positions are in natural order.
#pragma once

#include "simd/constant_time.h"
#include "simd/kernels.h"

namespace quancrypt::simd {
namespace {

constexpr std::size_t kRows = 8;
constexpr std::size_t kColumns = 8;  // of a tile that is transposed at a time

/// kRows x kColumns complex values in registers or L1.
struct Tile {
  double re[kRows][kColumns];
  double im[kRows][kColumns];
};

/// (u, v) -> (u + v, (u - v) w), rows `lo` and `hi`.
inline void inverse_rows(Tile& t, std::size_t lo, std::size_t hi, const double* w_re,
                         const double* w_im) {
#pragma GCC ivdep
  for (std::size_t c = 0; c < kColumns; ++c) {
    const double d_re = t.re[lo][c] - t.re[hi][c];
    const double d_im = t.im[lo][c] - t.im[hi][c];
    t.re[lo][c] += t.re[hi][c];
    t.im[lo][c] += t.im[hi][c];
    t.re[hi][c] = d_re * w_re[c] - d_im * w_im[c];
    t.im[hi][c] = d_re * w_im[c] + d_im * w_re[c];
  }
}

/// (u, v) -> (u + v conj(w), u - v conj(w)).
inline void forward_rows(Tile& t, std::size_t lo, std::size_t hi, const double* w_re,
                         const double* w_im) {
#pragma GCC ivdep
  for (std::size_t c = 0; c < kColumns; ++c) {
    const double v_re = t.re[hi][c] * w_re[c] + t.im[hi][c] * w_im[c];
    const double v_im = t.im[hi][c] * w_re[c] - t.re[hi][c] * w_im[c];
    t.re[hi][c] = t.re[lo][c] - v_re;
    t.im[hi][c] = t.im[lo][c] - v_im;
    t.re[lo][c] += v_re;
    t.im[lo][c] += v_im;
  }
}

inline void inverse_span(double* __restrict lo_re, double* __restrict lo_im,
                         double* __restrict hi_re, double* __restrict hi_im, std::size_t gap,
                         double w_re, double w_im) {
#pragma GCC ivdep
  for (std::size_t j = 0; j < gap; ++j) {
    const double d_re = lo_re[j] - hi_re[j];
    const double d_im = lo_im[j] - hi_im[j];
    lo_re[j] += hi_re[j];
    lo_im[j] += hi_im[j];
    hi_re[j] = d_re * w_re - d_im * w_im;
    hi_im[j] = d_re * w_im + d_im * w_re;
  }
}

inline void forward_span(double* __restrict lo_re, double* __restrict lo_im,
                         double* __restrict hi_re, double* __restrict hi_im, std::size_t gap,
                         double w_re, double w_im) {
#pragma GCC ivdep
  for (std::size_t j = 0; j < gap; ++j) {
    const double v_re = hi_re[j] * w_re + hi_im[j] * w_im;
    const double v_im = hi_im[j] * w_re - hi_re[j] * w_im;
    hi_re[j] = lo_re[j] - v_re;
    hi_im[j] = lo_im[j] - v_im;
    lo_re[j] += v_re;
    lo_im[j] += v_im;
  }
}

inline void slots_to_coefficients_loops(const double* rows, const SlotTable& table, double factor,
                                        double* coefficients) {
  const std::size_t h = table.half;
  const std::size_t columns = h / kRows;
  double* re = coefficients;
  double* im = coefficients + h;
  for (std::size_t begin = 0; begin < columns; begin += kColumns) {
    Tile t;
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t c = 0; c < kColumns; ++c) {
        t.re[r][c] = rows[r * columns + begin + c];
        t.im[r][c] = 0;
      }
    }
    const double* w_re = table.row_re + begin;
    const double* w_im = table.row_im + begin;
    for (std::size_t gap = 1; gap < kRows; gap *= 2) {
      for (std::size_t r = 0; r < kRows; r += 2 * gap, w_re += columns, w_im += columns) {
        for (std::size_t k = 0; k < gap; ++k) inverse_rows(t, r + k, r + k + gap, w_re, w_im);
      }
    }
    for (std::size_t c = 0; c < kColumns; ++c) {
      for (std::size_t r = 0; r < kRows; ++r) {
        re[(begin + c) * kRows + r] = t.re[r][c];
        im[(begin + c) * kRows + r] = t.im[r][c];
      }
    }
  }
  const double* w_re = table.span_re;
  const double* w_im = table.span_im;
  for (std::size_t gap = kRows; gap < h; gap *= 2) {
    for (std::size_t at = 0; at < h; at += 2 * gap) {
      inverse_span(re + at, im + at, re + at + gap, im + at + gap, gap, *w_re++, *w_im++);
    }
  }
  // The last layer: v is the conjugate of u, so u + v and u - v are 2 Re u and 2 i Im u.
  const double last = table.last_im * factor;
  for (std::size_t j = 0; j < h; ++j) {
    re[j] = (re[j] + re[j]) * factor;
    im[j] = -((im[j] + im[j]) * last);
  }
}

inline void coefficients_to_slots_loops(double* coefficients, const SlotTable& table,
                                        double* rows) {
  const std::size_t h = table.half;
  const std::size_t columns = h / kRows;
  // The first layer: u + i v of two real coefficients. They already stand as such.
  double* re = coefficients;
  double* im = coefficients + h;
  std::size_t done = table.span_count;
  for (std::size_t gap = h / 2; gap >= kRows; gap /= 2) {
    done -= h / (2 * gap);
    const double* w_re = table.span_re + done;
    const double* w_im = table.span_im + done;
    for (std::size_t at = 0; at < h; at += 2 * gap) {
      forward_span(re + at, im + at, re + at + gap, im + at + gap, gap, *w_re++, *w_im++);
    }
  }
  for (std::size_t begin = 0; begin < columns; begin += kColumns) {
    Tile t;
    for (std::size_t c = 0; c < kColumns; ++c) {
      for (std::size_t r = 0; r < kRows; ++r) {
        t.re[r][c] = re[(begin + c) * kRows + r];
        t.im[r][c] = im[(begin + c) * kRows + r];
      }
    }
    std::size_t row = kRows - 1;  // rows of roots: 4 of gap 1, 2 of gap 2, 1 of gap 4
    for (std::size_t gap = kRows / 2; gap >= 1; gap /= 2) {
      row -= kRows / (2 * gap);
      for (std::size_t i = 0; i < kRows / (2 * gap); ++i) {
        const double* w_re = table.row_re + (row + i) * columns + begin;
        const double* w_im = table.row_im + (row + i) * columns + begin;
        for (std::size_t k = 0; k < gap; ++k) {
          forward_rows(t, 2 * gap * i + k, 2 * gap * i + k + gap, w_re, w_im);
        }
      }
    }
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t c = 0; c < kColumns; ++c) rows[r * columns + begin + c] = t.re[r][c];
    }
  }
}

/// Half away from zero, as std::round; false if some |x| >= 2^62, where out is unspecified.
inline bool round_to_integers_loops(const double* x, std::size_t n, std::int64_t* out) {
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double magnitude = __builtin_fabs(x[i]);
    largest = largest < magnitude ? magnitude : largest;
  }
  const bool fits = largest < 0x1p62;
  QUANCRYPT_DECLASSIFY(huge_message, &fits, sizeof(fits));
  if (!fits) return false;
  for (std::size_t i = 0; i < n; ++i) {
    const auto whole = static_cast<std::int64_t>(x[i]);
    const double rest = x[i] - static_cast<double>(whole);  // exact
    out[i] =
        whole + static_cast<std::int64_t>(rest >= 0.5) - static_cast<std::int64_t>(rest <= -0.5);
  }
  return true;
}

}  // namespace
}  // namespace quancrypt::simd
