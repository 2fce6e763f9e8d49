#include "packing/unpack_dequantize.h"

#include <algorithm>
#include <utility>

#include "packing/segments.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"

namespace quancrypt {

UnpackDequantizeSink::UnpackDequantizeSink(const PackLayout& layout, std::size_t degree,
                                           std::vector<OutputSegment> segments, bool integers,
                                           std::int64_t offset, simd::SumLimits limits,
                                           std::size_t workers)
    : layout_(layout),
      degree_(degree),
      segments_(std::move(segments)),
      integers_(integers),
      offset_(offset),
      limits_(limits),
      fields_(workers) {
  for (const OutputSegment& segment : segments_) {
    starts_.push_back(value_count_);
    value_count_ += segment.count;
  }
}

void UnpackDequantizeSink::take(std::size_t index, std::size_t worker, std::uint64_t* residues) {
  const std::size_t values = layout_.values();
  SecureBuffer<std::uint32_t>& fields = fields_[worker];
  if (fields.size() == 0) fields = SecureBuffer<std::uint32_t>(values);
  const simd::KernelTable& kernels = simd::kernels();
  const bool valid =
      kernels.unpack_fields(residues, degree_, layout_.table(), limits_, fields.data());
  QUANCRYPT_DECLASSIFY(valid_sum, &valid, sizeof(valid));
  if (!valid) valid_.store(false);
  const std::size_t begin = index * values;
  const std::size_t end = std::min(begin + values, value_count_);
  for_each_overlap(
      segments_, starts_, begin, end,
      [&](const OutputSegment& segment, std::size_t at, std::size_t from, std::size_t count) {
        const std::uint32_t* in = fields.data() + from;
        if (!integers_) {
          kernels.dequantize(in, count, offset_, segment.factor,
                             static_cast<float*>(segment.data) + at);
          return;
        }
        std::int64_t* out = static_cast<std::int64_t*>(segment.data) + at;
        for (std::size_t i = 0; i < count; ++i) {
          out[i] = static_cast<std::int64_t>(in[i]) - offset_;
        }
      });
}

}  // namespace quancrypt
