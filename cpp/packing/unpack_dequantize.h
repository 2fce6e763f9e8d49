// Residues of a decrypted sum -> tensors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "packing/layout.h"
#include "packing/plaintext.h"

namespace quancrypt {

struct OutputSegment {
  void* data;  ///< float32, or int64 with `integers`
  std::size_t count;
  double factor;  ///< of the integer sum; ignored with `integers`
};

class UnpackDequantizeSink final : public PlaintextSink {
 public:
  /// `offset` = weight * q_max is taken off every field.
  UnpackDequantizeSink(const PackLayout& layout, std::size_t degree,
                       std::vector<OutputSegment> segments, bool integers, std::int64_t offset,
                       simd::SumLimits limits, std::size_t workers);

  [[nodiscard]] std::size_t workers() const override { return fields_.size(); }
  void take(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

  /// Every coefficient so far was a valid sum.
  [[nodiscard]] bool valid() const noexcept { return valid_.load(); }

 private:
  const PackLayout& layout_;
  std::size_t degree_;
  std::vector<OutputSegment> segments_;
  std::vector<std::size_t> starts_;
  std::size_t value_count_ = 0;
  bool integers_;
  std::int64_t offset_;
  simd::SumLimits limits_;
  std::vector<SecureBuffer<std::uint32_t>> fields_;  // per worker
  std::atomic<bool> valid_{true};
};

}  // namespace quancrypt
