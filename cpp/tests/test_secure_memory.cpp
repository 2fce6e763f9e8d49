// Memory of secrets: zeroed, locked, left out of dumps, fenced; and what happens where the system
// refuses, at fork() and when it is given back.
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/pages.h"
#include "base/secure_buffer.h"
#include "check.h"
#include "child.h"

using namespace quancrypt;
using quancrypt::testing::holds_in_child;

namespace {

constexpr std::size_t kKeyBytes = std::size_t{1} << 18;

/// The line of /proc/self/smaps with the flags of the mapping at `memory`; "" if there is none.
std::string flags_of(const void* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  std::ifstream file("/proc/self/smaps");
  std::string line;
  bool inside = false;
  while (std::getline(file, line)) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      inside = begin <= address && address < end;
    }
    if (inside && line.rfind("VmFlags:", 0) == 0) return line + " ";
  }
  return "";
}

bool has_flag(const void* memory, const char* flag) {
  return flags_of(memory).find(std::string(" ") + flag + " ") != std::string::npos;
}

/// Not under emulators of user space, which show the host's mappings or none.
bool shows_flags() {
  void* memory = map_pages(page_bytes(), false);
  const bool shown = leave_out_of_dumps(memory, page_bytes()) && has_flag(memory, "dd");
  unmap_pages(memory, page_bytes(), false);
  return shown;
}

/// Not under sanitizers either, whose mlock() says yes and does nothing.
bool shows_locks() {
  void* memory = map_pages(page_bytes(), false);
  const bool shown = lock_pages(memory, page_bytes()) && has_flag(memory, "lo");
  unmap_pages(memory, page_bytes(), false);
  return shown;
}

/// Kilobytes of "VmLck" in /proc/self/status.
std::size_t locked_kilobytes() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    if (word == "VmLck:") {
      std::size_t value = 0;
      file >> value;
      return value;
    }
  }
  return 0;
}

/// From here on nothing more is locked than `bytes`, root or not.
bool limit_locks(std::size_t bytes) {
  rlimit limit{bytes, bytes};
  if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return false;
  return geteuid() != 0 || seteuid(65534) == 0;  // root is not bound by it
}

bool all_zero(const std::uint8_t* data, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    if (data[i] != 0) return false;
  }
  return true;
}

}  // namespace

TEST(memory_is_aligned_and_zero_also_when_it_comes_again) {
  for (const MemoryUse use : {MemoryUse::key, MemoryUse::working, MemoryUse::open}) {
    for (const std::size_t size :
         {std::size_t{1}, std::size_t{32}, std::size_t{1056}, std::size_t{4095}, std::size_t{4096},
          std::size_t{70000}, std::size_t{5} << 20}) {
      for (int time = 0; time < 3; ++time) {
        SecureBuffer<std::uint8_t> buffer(size, use);
        CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
        CHECK(all_zero(buffer.data(), size));
        std::memset(buffer.data(), 0x5A, size);
      }
    }
  }
}

TEST(pieces_do_not_overlap) {
  std::vector<SecureBuffer<std::uint8_t>> all;
  for (std::size_t i = 0; i < 600; ++i) {
    all.emplace_back(1 + i * 37 % 5000, i % 2 == 0 ? MemoryUse::key : MemoryUse::working);
    std::memset(all.back().data(), static_cast<int>(i % 251), all.back().size());
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t b = 0; b < all[i].size(); ++b) CHECK(all[i][b] == i % 251);
  }
}

TEST(keys_are_locked_left_out_of_dumps_and_given_back) {
  const MemoryCounts before = secure_memory_counts();
  const std::size_t locked = locked_kilobytes();
  const bool shown = shows_flags();
  {
    SecureBuffer<std::uint8_t> key(kKeyBytes, MemoryUse::key);
    const MemoryCounts now = secure_memory_counts();
    CHECK(now.key >= before.key + kKeyBytes);
    if (!shown) return;
    CHECK(now.undumped - before.undumped == now.key - before.key);
    CHECK(has_flag(key.data(), "dd"));
    CHECK(has_flag(key.data() + key.size() - 1, "dd"));
    if (now.refusals == before.refusals) {
      CHECK(now.key_locked - before.key_locked == now.key - before.key);
      if (shows_locks()) {
        CHECK(has_flag(key.data(), "lo"));
        CHECK(locked_kilobytes() >= locked + kKeyBytes / 1024);
      }
    }
    SecureBuffer<std::uint8_t> other = std::move(key);
    CHECK(has_flag(other.data(), "dd"));
  }
  const MemoryCounts after = secure_memory_counts();
  CHECK(after.key == before.key);
  CHECK(after.key_locked == before.key_locked);
  CHECK(after.undumped == before.undumped);
  CHECK(locked_kilobytes() == locked);
}

TEST(seeds_lie_in_such_pages_too) {
  if (!shows_flags()) return;
  const SecureBuffer<std::uint8_t> seed(32, MemoryUse::key);
  const SecureBuffer<std::uint8_t> work(70000);
  const SecureBuffer<std::uint8_t> sums(70000, MemoryUse::open);
  CHECK(has_flag(seed.data(), "dd"));
  CHECK(has_flag(work.data(), "dd"));
  CHECK(!has_flag(sums.data(), "dd"));
}

TEST(keys_are_fenced) {
  SecureBuffer<std::uint8_t> key(kKeyBytes, MemoryUse::key);
  volatile std::uint8_t* memory = key.data();
  const std::size_t whole = (kKeyBytes + page_bytes() - 1) / page_bytes() * page_bytes();
  volatile std::uint8_t read = 0;
  CHECK(holds_in_child([&] { read = memory[whole - 1]; }));
  CHECK(!holds_in_child([&] { read = memory[-1]; }));
  CHECK(!holds_in_child([&] { read = memory[whole]; }));
}

TEST(a_system_that_locks_nothing_is_no_error) {
  if (!shows_locks()) return;
  CHECK(holds_in_child([] {
    if (!limit_locks(0)) return;
    const MemoryCounts before = secure_memory_counts();
    SecureBuffer<std::uint8_t> key(kKeyBytes, MemoryUse::key);
    std::memset(key.data(), 1, key.size());
    const MemoryCounts now = secure_memory_counts();
    CHECK(now.key > before.key);
    CHECK(now.key_locked == before.key_locked);
    CHECK(now.refusals == before.refusals + 1);
    CHECK(now.undumped - before.undumped == now.key - before.key);
    CHECK(lock_limit() == 0);
  }));
}

TEST(working_memory_leaves_half_of_the_limit_to_keys) {
  if (!shows_locks()) return;
  CHECK(holds_in_child([] {
    constexpr std::size_t kLimit = std::size_t{1} << 22;
    if (!limit_locks(kLimit)) return;
    std::vector<SecureBuffer<std::uint8_t>> work;
    for (int i = 0; i < 40; ++i) work.emplace_back(100000 + 5000 * i);
    const MemoryCounts full = secure_memory_counts();
    CHECK(full.working_locked <= kLimit / 2);
    CHECK(full.working_locked >= kLimit / 4);
    CHECK(full.working > kLimit);
    const SecureBuffer<std::uint8_t> key(kKeyBytes, MemoryUse::key);
    const MemoryCounts now = secure_memory_counts();
    CHECK(now.key_locked >= kKeyBytes);
    CHECK(now.refusals == full.refusals);
  }));
}

TEST(a_child_holds_keys_as_its_parent_does) {
  const bool shown = shows_flags();
  const bool locks = shows_locks();
  SecureBuffer<std::uint8_t> key(kKeyBytes, MemoryUse::key);
  std::memset(key.data(), 0x5A, key.size());
  const MemoryCounts parent = secure_memory_counts();
  CHECK(holds_in_child([&] {
    CHECK(key[0] == 0x5A);
    CHECK(key[kKeyBytes - 1] == 0x5A);
    const MemoryCounts now = secure_memory_counts();
    CHECK(now.key == parent.key);
    CHECK(now.key_locked == parent.key_locked);
    CHECK(now.working_locked == 0);
    if (shown) CHECK(has_flag(key.data(), "dd"));
    if (locks && parent.key_locked == parent.key) CHECK(has_flag(key.data(), "lo"));
    key = SecureBuffer<std::uint8_t>(64, MemoryUse::key);
    CHECK(secure_memory_counts().key < now.key);
  }));
  CHECK(key[0] == 0x5A);
}

TEST(many_threads_and_forks) {
  std::vector<std::thread> threads;
  std::atomic<bool> sound{true};
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([t, &sound] {
      for (std::size_t i = 0; i < 300; ++i) {
        SecureBuffer<std::uint8_t> buffer(1 + (i * 977 + t * 131) % 20000,
                                          i % 3 == 0 ? MemoryUse::key : MemoryUse::working);
        if (!all_zero(buffer.data(), buffer.size())) sound = false;
        std::memset(buffer.data(), static_cast<int>(t + 1), buffer.size());
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    CHECK(holds_in_child([] { CHECK(SecureBuffer<std::uint8_t>(9000)[8999] == 0); }));
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(sound);
}

int main() { return testing::run_all(); }
