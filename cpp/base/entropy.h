#pragma once

#include <cstddef>
#include <cstdint>

namespace quancrypt {

/// Fills `out` with bytes of the operating system's generator (getrandom(2), else /dev/urandom).
/// Throws Error(system) if the system has none to give; never falls back to anything weaker.
void fill_entropy(std::uint8_t* out, std::size_t size);

}  // namespace quancrypt
