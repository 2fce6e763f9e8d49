// The reference set: plain C++20, any CPU. Each function is the meaning of its slot in kernels.h.
#pragma once

#include "simd/kernels.h"

namespace quancrypt::simd::portable {

#include "simd/kernel_declarations.h"

std::uint32_t crc32c(std::uint32_t crc, const std::uint8_t* data, std::size_t size);

}  // namespace quancrypt::simd::portable
