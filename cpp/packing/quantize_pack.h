// Tensors -> clipped, quantized, packed residues.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/secure_buffer.h"
#include "packing/layout.h"
#include "packing/plaintext.h"
#include "ring/prng.h"

namespace quancrypt {

enum class ElementType {
  float32,
  float64,
  field16,  ///< already quantized, offset binary, in [0, 2 q_max]
};

struct InputSegment {
  ElementType type;
  const void* data;  ///< contiguous, naturally aligned
  std::size_t count;
  double clip;  ///< > 0; ignored for field16
};

/// Quantizes segment values [at, at + count) into fields; returns how many came before the first
/// NaN or infinity (count if there is none). `dither` as in simd::KernelTable::quantize_f32.
std::size_t quantize_segment(const InputSegment& segment, std::size_t at, std::size_t count,
                             std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out);

class QuantizePackSource final : public PlaintextSource {
 public:
  /// `dither`: seed of stochastic rounding, none for rounding to nearest.
  QuantizePackSource(const PackLayout& layout, std::size_t degree,
                     std::vector<InputSegment> segments, std::int32_t q_max,
                     std::optional<Seed> dither, std::size_t workers);

  [[nodiscard]] std::size_t workers() const override { return fields_.size(); }
  void fill(std::size_t index, std::size_t worker, std::uint64_t* residues) override;
  /// The fields of plaintext `index`, layout.values() of them, zero after the last value; valid
  /// until the worker's next call.
  const std::uint16_t* quantize(std::size_t index, std::size_t worker);

  [[nodiscard]] std::size_t value_count() const noexcept { return value_count_; }
  /// Number of the first value that is NaN or infinite, or value_count().
  [[nodiscard]] std::size_t first_bad() const noexcept { return first_bad_.load(); }

 private:
  const PackLayout& layout_;
  std::size_t degree_;
  std::vector<InputSegment> segments_;
  std::vector<std::size_t> starts_;
  std::size_t value_count_ = 0;
  std::int32_t q_max_;
  std::optional<Seed> dither_;
  std::vector<SecureBuffer<std::uint16_t>> fields_;   // per worker
  std::vector<SecureBuffer<std::uint32_t>> dithers_;  // per worker, empty for nearest
  std::atomic<std::size_t> first_bad_{0};
};

}  // namespace quancrypt
