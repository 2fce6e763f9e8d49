#include "packing/quantize_pack.h"

#include <algorithm>
#include <utility>

#include "packing/segments.h"
#include "simd/dispatch.h"

namespace quancrypt {

std::size_t quantize_segment(const InputSegment& segment, std::size_t at, std::size_t count,
                             std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out) {
  const simd::KernelTable& kernels = simd::kernels();
  switch (segment.type) {
    case ElementType::float32: {
      const auto clip = static_cast<float>(segment.clip);
      const auto scale = static_cast<float>(q_max / segment.clip);
      return kernels.quantize_f32(static_cast<const float*>(segment.data) + at, count, clip, scale,
                                  q_max, dither, out);
    }
    case ElementType::float64:
      return kernels.quantize_f64(static_cast<const double*>(segment.data) + at, count,
                                  segment.clip, q_max / segment.clip, q_max, dither, out);
    case ElementType::field16:
      std::copy_n(static_cast<const std::uint16_t*>(segment.data) + at, count, out);
      return count;
  }
  return 0;
}

QuantizePackSource::QuantizePackSource(const PackLayout& layout, std::size_t degree,
                                       std::vector<InputSegment> segments, std::int32_t q_max,
                                       std::optional<Seed> dither, std::size_t workers)
    : layout_(layout),
      degree_(degree),
      segments_(std::move(segments)),
      q_max_(q_max),
      dither_(dither),
      fields_(workers),
      dithers_(workers) {
  for (const InputSegment& segment : segments_) {
    starts_.push_back(value_count_);
    value_count_ += segment.count;
  }
  first_bad_ = value_count_;
}

void QuantizePackSource::fill(std::size_t index, std::size_t worker, std::uint64_t* residues) {
  simd::kernels().pack_fields(quantize(index, worker), degree_, layout_.table(), residues);
}

const std::uint16_t* QuantizePackSource::quantize(std::size_t index, std::size_t worker) {
  const std::size_t values = layout_.values();
  SecureBuffer<std::uint16_t>& fields = fields_[worker];
  if (fields.size() == 0) fields = SecureBuffer<std::uint16_t>(values);
  const std::uint32_t* dither = nullptr;
  if (dither_) {
    SecureBuffer<std::uint32_t>& words = dithers_[worker];
    if (words.size() == 0) words = SecureBuffer<std::uint32_t>(values);
    Prng prng(*dither_, {index, kDitherPart});
    prng.read(reinterpret_cast<std::uint8_t*>(words.data()), values * sizeof(std::uint32_t));
    dither = words.data();
  }
  const std::size_t begin = index * values;
  const std::size_t end = std::min(begin + values, value_count_);
  for_each_overlap(
      segments_, starts_, begin, end,
      [&](const InputSegment& segment, std::size_t at, std::size_t to, std::size_t count) {
        const std::size_t good =
            quantize_segment(segment, at, count, q_max_, dither == nullptr ? nullptr : dither + to,
                             fields.data() + to);
        if (good == count) return;
        std::size_t seen = first_bad_.load();
        while (begin + to + good < seen &&
               !first_bad_.compare_exchange_weak(seen, begin + to + good)) {
        }
      });
  std::fill(fields.data() + (end - begin), fields.data() + values, std::uint16_t{0});
  return fields.data();
}

}  // namespace quancrypt
