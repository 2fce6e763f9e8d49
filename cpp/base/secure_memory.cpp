#include "base/secure_memory.h"

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

#include "base/wipe.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace quancrypt {
namespace {

constexpr std::size_t kAlignment = 64;  // one cache line, one AVX-512 register
constexpr std::size_t kSmallest = std::size_t{1}
                                  << 12;                // smaller pieces are the allocator's affair
constexpr std::size_t kLargest = std::size_t{1} << 22;  // larger ones are long-lived: sums
constexpr std::size_t kMostKept = std::size_t{1} << 26;  // 64 MiB

struct Kept {
  std::mutex mutex;
  std::multimap<std::size_t, void*> free;
  std::size_t bytes = 0;
};

// Leaked on purpose: buffers may outlive static destructors at interpreter shutdown. Whoever finds it
// locked goes to the allocator instead of waiting: a child process may have inherited it locked.
Kept& kept() {
  static Kept* instance = new Kept;
  return *instance;
}

std::size_t rounded(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void* acquire_secure(std::size_t bytes) {
  bytes = rounded(bytes);
  if (bytes >= kSmallest && bytes <= kLargest) {
    Kept& k = kept();
    const std::unique_lock<std::mutex> lock(k.mutex, std::try_to_lock);
    if (lock.owns_lock()) {
      const auto found = k.free.find(bytes);
      if (found != k.free.end()) {
        void* memory = found->second;  // zeroed when it was released
        k.free.erase(found);
        k.bytes -= bytes;
        return memory;
      }
    }
  }
  void* memory = std::aligned_alloc(kAlignment, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  expect_filling(memory, bytes);
  wipe(memory, bytes);
  return memory;
}

void expect_filling([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t kWorthwhile = std::size_t{1} << 22;  // as NumPy does for its arrays
  if (bytes < kWorthwhile) return;
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void release_secure(void* memory, std::size_t bytes) noexcept {
  bytes = rounded(bytes);
  wipe(memory, bytes);
  if (bytes >= kSmallest && bytes <= kLargest) {
    Kept& k = kept();
    const std::unique_lock<std::mutex> lock(k.mutex, std::try_to_lock);
    if (lock.owns_lock() && k.bytes + bytes <= kMostKept) {
      try {
        k.free.emplace(bytes, memory);
        k.bytes += bytes;
        return;
      } catch (...) {  // no memory for the note: give it back below
      }
    }
  }
  std::free(memory);
}

}  // namespace quancrypt
