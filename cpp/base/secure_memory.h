// Memory for secrets: zeroed before it is given back, and kept for the next use instead of going back
// to the system, whose fresh pages cost more than the work on them.
#pragma once

#include <cstddef>

namespace quancrypt {

/// `bytes` zero bytes, 64-byte aligned; throws std::bad_alloc. Thread-safe.
void* acquire_secure(std::size_t bytes);

/// Tells the system that `bytes` fresh bytes are about to be filled, so that it may map them in large
/// pages at a time. A hint: nothing depends on it.
void expect_filling(void* memory, std::size_t bytes) noexcept;

/// Zeroes and takes back what acquire_secure(bytes) gave.
void release_secure(void* memory, std::size_t bytes) noexcept;

}  // namespace quancrypt
