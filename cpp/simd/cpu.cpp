#include "simd/cpu.h"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace quancrypt::simd {

#if defined(__x86_64__)
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

/// Which register files the operating system saves.
std::uint64_t saved_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

std::vector<std::string> detect() {
  std::vector<std::string> found;
  const auto add = [&](const char* name, bool present) {
    if (present) found.emplace_back(name);
  };
  const Registers one = cpuid(1, 0);
  const Registers seven = cpuid(7, 0);
  const bool os_saves = (one.ecx >> 27 & 1) != 0;  // OSXSAVE
  const std::uint64_t state = os_saves ? saved_state() : 0;
  const bool ymm = (state & 0x06) == 0x06;
  const bool zmm = (state & 0xE6) == 0xE6;
  add("ssse3", one.ecx >> 9 & 1);
  add("sse4.1", one.ecx >> 19 & 1);
  add("sse4.2", one.ecx >> 20 & 1);
  add("popcnt", one.ecx >> 23 & 1);
  add("aes", one.ecx >> 25 & 1);
  add("pclmulqdq", one.ecx >> 1 & 1);
  add("avx", ymm && (one.ecx >> 28 & 1));
  add("fma", ymm && (one.ecx >> 12 & 1));
  add("avx2", ymm && (seven.ebx >> 5 & 1));
  add("bmi2", seven.ebx >> 8 & 1);
  add("sha", seven.ebx >> 29 & 1);
  add("avx512f", zmm && (seven.ebx >> 16 & 1));
  add("avx512dq", zmm && (seven.ebx >> 17 & 1));
  add("avx512ifma", zmm && (seven.ebx >> 21 & 1));
  add("avx512bw", zmm && (seven.ebx >> 30 & 1));
  add("avx512vl", zmm && (seven.ebx >> 31 & 1));
  add("avx512vbmi", zmm && (seven.ecx >> 1 & 1));
  add("avx512vpopcntdq", zmm && (seven.ecx >> 14 & 1));
  add("vaes", ymm && (seven.ecx >> 9 & 1));
  add("vpclmulqdq", ymm && (seven.ecx >> 10 & 1));
  return found;
}

}  // namespace

std::vector<std::string> cpu_features() {
  static const std::vector<std::string> features = detect();
  return features;
}
#else
std::vector<std::string> cpu_features() { return {}; }
#endif

bool cpu_has(const std::vector<std::string>& names) {
  const auto have = cpu_features();
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return std::find(have.begin(), have.end(), name) != have.end();
  });
}

}  // namespace quancrypt::simd
