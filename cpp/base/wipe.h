#pragma once

#include <cstddef>

namespace quancrypt {

/// Overwrites `size` bytes with zeros; the compiler may not drop the stores.
void wipe(void* data, std::size_t size) noexcept;

}  // namespace quancrypt
