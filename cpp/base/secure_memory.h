// Memory for secrets: left out of core dumps, locked against swapping where the system allows, zeroed
// before it is given back. What a call works in is kept for the next one: fresh pages cost more than the
// work on them, and none is locked or unlocked on the way of an encryption.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quancrypt {

enum class MemoryUse : std::uint8_t {
  key,  ///< keys, shares, seeds. Between guard pages; locked; unlocked and unmapped when released.
  working,  ///< plaintexts, noise, masks of one call. Locked up to half of the limit; kept.
  open,     ///< nothing secret: sums of ciphertexts. Neither locked nor left out of dumps; kept.
};

/// `bytes` zero bytes, 64-byte aligned; throws std::bad_alloc. Thread-safe. A system that refuses to
/// lock or to leave out of dumps is no error: see secure_memory_counts().
void* acquire_secure(std::size_t bytes, MemoryUse use);

/// Zeroes and takes back what acquire_secure(bytes, use) gave.
void release_secure(void* memory, std::size_t bytes, MemoryUse use) noexcept;

/// Tells the system that `bytes` fresh bytes are about to be filled, so that it may map them in large
/// pages at a time. A hint: nothing depends on it.
void expect_filling(void* memory, std::size_t bytes) noexcept;

/// Bytes mapped in this process, whole pages, and what the system did about them.
struct MemoryCounts {
  std::size_t key = 0;
  std::size_t key_locked = 0;
  std::size_t working = 0;  ///< what is kept included
  std::size_t working_locked = 0;
  std::size_t undumped = 0;  ///< of key and working: left out of core dumps
  std::size_t refusals = 0;  ///< how often the system refused to lock or to leave out
};

MemoryCounts secure_memory_counts();

}  // namespace quancrypt
