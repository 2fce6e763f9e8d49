// SHA-256 of the pieces of a body.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace quancrypt {

using Digest = std::array<std::uint8_t, 32>;

/// Of `count` pieces of `size` bytes, whose beginnings lie `step` bytes apart; on several threads. Empty
/// if this CPU has no instructions for it: whoever asks has a library that does as well without.
std::vector<Digest> sha256_each(const std::uint8_t* first, std::size_t size, std::size_t step,
                                std::size_t count);

}  // namespace quancrypt
