#include "base/secure_memory.h"

#include <pthread.h>

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "base/pages.h"
#include "base/wipe.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

// The address sanitizer is told which bytes are nobody's: it does not see them in our pages.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QUANCRYPT_ADDRESS_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define QUANCRYPT_ADDRESS_SANITIZER 1
#endif
#if defined(QUANCRYPT_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) static_cast<void>(0)
#endif

namespace quancrypt {
namespace {

constexpr std::size_t kAlignment = 64;  // one cache line, one AVX-512 register
#if defined(QUANCRYPT_ADDRESS_SANITIZER)
constexpr std::size_t kGap = kAlignment;  // behind every piece, poisoned
#else
constexpr std::size_t kGap = 0;
#endif
constexpr std::size_t kSmallest = std::size_t{1} << 12;  // smaller pieces share pages
constexpr std::size_t kBlock = std::size_t{1} << 14;     // ... of so many bytes
constexpr std::size_t kLargest = std::size_t{1} << 22;   // larger ones are not kept
constexpr std::size_t kMostKept = std::size_t{1} << 26;  // 64 MiB

struct Region {
  std::size_t bytes;
  MemoryUse use;
  bool locked;
  bool undumped;
};

struct State {
  std::mutex mutex;
  std::map<void*, Region> regions;  // of keys and working memory, in use or kept
  std::array<std::multimap<std::size_t, void*>, 3> kept;  // for each use, by size; zeroed
  std::size_t kept_bytes = 0;
  std::array<std::vector<void*>, kSmallest / kAlignment + 2> small;  // free pieces, by size; zeroed
  std::uint8_t* block = nullptr;                                     // the rest of a block of them
  std::size_t block_left = 0;
  MemoryCounts counts;
};

// Leaked on purpose: buffers may outlive static destructors at interpreter shutdown.
State& state();

// fork() waits for the lock: no child inherits it locked, nor a state that is half changed.
void before_fork() { state().mutex.lock(); }
void after_fork() { state().mutex.unlock(); }

// Locks are not inherited. A child's copies of keys are locked again; what a call works in is not.
void in_child() {
  State& s = state();
  s.counts.key_locked = 0;
  s.counts.working_locked = 0;
  for (auto& [memory, region] : s.regions) {
    if (!region.locked) continue;
    region.locked = region.use == MemoryUse::key && lock_pages(memory, region.bytes);
    if (region.locked) {
      s.counts.key_locked += region.bytes;
    } else if (region.use == MemoryUse::key) {
      ++s.counts.refusals;
    }
  }
  s.mutex.unlock();
}

State& state() {
  static State* instance = [] {
    auto* made = new State;
    pthread_atfork(before_fork, after_fork, in_child);
    return made;
  }();
  return *instance;
}

constexpr std::size_t up_to(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

bool is_guarded(MemoryUse use) { return use == MemoryUse::key; }

/// Working memory leaves half of the limit to keys: takes its part of the other half, if there is one.
bool takes_lock(State& s, std::size_t bytes, MemoryUse use) {
  if (use == MemoryUse::key) return true;
  const std::size_t limit = lock_limit() / 2;
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (bytes > limit || s.counts.working_locked > limit - bytes) return false;
  s.counts.working_locked += bytes;
  return true;
}

void* map_region(State& s, std::size_t bytes, MemoryUse use) {
  void* memory = map_pages(bytes, is_guarded(use));
  if (memory == nullptr) throw std::bad_alloc();
  if (use == MemoryUse::open) {
    expect_filling(memory, bytes);
    return memory;
  }
  const bool is_key = use == MemoryUse::key;
  const bool undumped = leave_out_of_dumps(memory, bytes);
  const bool wanted = takes_lock(s, bytes, use);
  const bool locked = wanted && lock_pages(memory, bytes);
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (wanted && !locked && !is_key) s.counts.working_locked -= bytes;
  try {
    s.regions.emplace(memory, Region{bytes, use, locked, undumped});
  } catch (...) {
    if (locked && !is_key) s.counts.working_locked -= bytes;
    unmap_pages(memory, bytes, is_guarded(use));
    throw;
  }
  (is_key ? s.counts.key : s.counts.working) += bytes;
  if (locked && is_key) s.counts.key_locked += bytes;
  if (undumped) s.counts.undumped += bytes;
  if (wanted && !locked) ++s.counts.refusals;
  if (!undumped) ++s.counts.refusals;
  return memory;
}

void unmap_region(State& s, void* memory, std::size_t bytes, MemoryUse use) noexcept {
  if (use != MemoryUse::open) {
    const std::lock_guard<std::mutex> lock(s.mutex);
    const auto found = s.regions.find(memory);
    const Region region = found->second;
    s.regions.erase(found);
    const bool is_key = use == MemoryUse::key;
    (is_key ? s.counts.key : s.counts.working) -= bytes;
    if (region.locked) (is_key ? s.counts.key_locked : s.counts.working_locked) -= bytes;
    if (region.undumped) s.counts.undumped -= bytes;
  }
  unmap_pages(memory, bytes, is_guarded(use));
}

/// A piece of a block of small ones, which all are treated as keys: seeds are among them. Blocks stay.
void* acquire_small(State& s, std::size_t slot) {
  {
    const std::lock_guard<std::mutex> lock(s.mutex);
    std::vector<void*>& free = s.small[slot / kAlignment];
    if (!free.empty()) {
      void* memory = free.back();
      free.pop_back();
      return memory;
    }
    if (s.block_left >= slot) {
      s.block_left -= slot;
      return std::exchange(s.block, s.block + slot);
    }
  }
  const std::size_t bytes = up_to(kBlock, page_bytes());
  auto* fresh = static_cast<std::uint8_t*>(map_region(s, bytes, MemoryUse::key));
  ASAN_POISON_MEMORY_REGION(fresh, bytes);
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.block = fresh + slot;  // what was left of the last one is not worth keeping
  s.block_left = bytes - slot;
  return fresh;
}

}  // namespace

void* acquire_secure(std::size_t bytes, MemoryUse use) {
  State& s = state();
  const std::size_t slot = up_to(bytes, kAlignment) + kGap;
  void* memory = nullptr;
  if (bytes < kSmallest) {
    memory = acquire_small(s, slot);
  } else {
    const std::size_t whole = up_to(slot, page_bytes());
    if (use != MemoryUse::key && whole <= kLargest) {
      const std::lock_guard<std::mutex> lock(s.mutex);
      auto& kept = s.kept[static_cast<std::size_t>(use)];
      const auto found = kept.find(whole);
      if (found != kept.end()) {
        memory = found->second;  // zeroed when it was released
        kept.erase(found);
        s.kept_bytes -= whole;
      }
    }
    if (memory == nullptr) memory = map_region(s, whole, use);
    ASAN_POISON_MEMORY_REGION(memory, whole);
  }
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  return memory;
}

void release_secure(void* memory, std::size_t bytes, MemoryUse use) noexcept {
  State& s = state();
  wipe(memory, bytes);
  const std::size_t slot = up_to(bytes, kAlignment) + kGap;
  if (bytes < kSmallest) {
    ASAN_POISON_MEMORY_REGION(memory, bytes);
    const std::lock_guard<std::mutex> lock(s.mutex);
    try {
      s.small[slot / kAlignment].push_back(memory);
    } catch (...) {  // no memory for the note: these few bytes are lost
    }
    return;
  }
  const std::size_t whole = up_to(slot, page_bytes());
  if (use != MemoryUse::key && whole <= kLargest) {
    const std::lock_guard<std::mutex> lock(s.mutex);
    if (s.kept_bytes + whole <= kMostKept) {
      try {
        s.kept[static_cast<std::size_t>(use)].emplace(whole, memory);
        s.kept_bytes += whole;
        ASAN_POISON_MEMORY_REGION(memory, whole);
        return;
      } catch (...) {  // no memory for the note: give it back below
      }
    }
  }
  ASAN_UNPOISON_MEMORY_REGION(memory, whole);
  unmap_region(s, memory, whole, use);
}

void expect_filling([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t kWorthwhile = std::size_t{1} << 22;  // as NumPy does for its arrays
  if (bytes < kWorthwhile) return;
  const std::size_t page = page_bytes();
  const auto begin = up_to(reinterpret_cast<std::uintptr_t>(memory), page);
  const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

MemoryCounts secure_memory_counts() {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  return s.counts;
}

}  // namespace quancrypt
