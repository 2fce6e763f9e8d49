// SHA-256 by the CPU's own instructions (Goldmont, Zen, Ice Lake and later).
#pragma once

#include <cstddef>
#include <cstdint>

namespace quancrypt::simd::sha {

/// As simd::Sha256 (dispatch.h).
void sha256(const std::uint8_t* const* texts, std::size_t count, std::size_t size,
            std::uint8_t (*digests)[32]);

}  // namespace quancrypt::simd::sha
