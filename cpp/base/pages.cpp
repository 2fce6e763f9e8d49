#include "base/pages.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <limits>

namespace quancrypt {
namespace {

std::uint8_t* mapping_of(void* memory, bool guarded) noexcept {
  return static_cast<std::uint8_t*>(memory) - (guarded ? page_bytes() : 0);
}

std::size_t mapping_bytes(std::size_t bytes, bool guarded) noexcept {
  return bytes + (guarded ? 2 * page_bytes() : 0);
}

}  // namespace

std::size_t page_bytes() noexcept {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

void* map_pages(std::size_t bytes, bool guarded) noexcept {
  const std::size_t whole = mapping_bytes(bytes, guarded);
  const int access = guarded ? PROT_NONE : PROT_READ | PROT_WRITE;
  void* mapping = mmap(nullptr, whole, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  if (!guarded) return mapping;
  void* memory = static_cast<std::uint8_t*>(mapping) + page_bytes();
  if (mprotect(memory, bytes, PROT_READ | PROT_WRITE) == 0) return memory;
  munmap(mapping, whole);
  return nullptr;
}

void unmap_pages(void* memory, std::size_t bytes, bool guarded) noexcept {
  munmap(mapping_of(memory, guarded), mapping_bytes(bytes, guarded));
}

bool lock_pages(void* memory, std::size_t bytes) noexcept { return mlock(memory, bytes) == 0; }

bool leave_out_of_dumps([[maybe_unused]] void* memory,
                        [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(MADV_DONTDUMP)
  return madvise(memory, bytes, MADV_DONTDUMP) == 0;
#else
  return false;
#endif
}

std::size_t lock_limit() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 0;
  if (limit.rlim_cur == RLIM_INFINITY) return std::numeric_limits<std::size_t>::max();
  return static_cast<std::size_t>(limit.rlim_cur);
}

}  // namespace quancrypt
