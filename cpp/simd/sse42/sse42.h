// Shared by the AVX2 and AVX-512 sets.
#pragma once

#include "simd/kernels.h"

namespace quancrypt::simd::sse42 {

std::uint32_t crc32c(std::uint32_t crc, const std::uint8_t* data, std::size_t size);

}  // namespace quancrypt::simd::sse42
