// Pages of the operating system, and what it can be asked to do with them.
#pragma once

#include <cstddef>

namespace quancrypt {

[[nodiscard]] std::size_t page_bytes() noexcept;

/// Zero pages for `bytes`, a multiple of page_bytes(); nullptr if there are none. With `guarded` the
/// pages before and after them fault.
void* map_pages(std::size_t bytes, bool guarded) noexcept;
/// Gives back what map_pages(bytes, guarded) gave; a lock ends with it.
void unmap_pages(void* memory, std::size_t bytes, bool guarded) noexcept;

/// Keeps the pages out of swap space; false if the system refuses, as beyond RLIMIT_MEMLOCK.
[[nodiscard]] bool lock_pages(void* memory, std::size_t bytes) noexcept;
/// Keeps the pages out of core dumps, of child processes too; false if the system cannot.
[[nodiscard]] bool leave_out_of_dumps(void* memory, std::size_t bytes) noexcept;
/// RLIMIT_MEMLOCK in bytes; the largest number where there is no limit.
[[nodiscard]] std::size_t lock_limit() noexcept;

}  // namespace quancrypt
