#include "simd/dispatch.h"

#include <cstdlib>

#include "base/error.h"
#include "simd/cpu.h"
#if defined(__x86_64__)
#include "simd/sha/sha.h"
#endif

namespace quancrypt::simd {

std::vector<const KernelTable*> available_kernels() {
  std::vector<const KernelTable*> sets;
#if defined(__x86_64__)
  if (cpu_has({"sse4.2", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512ifma", "avx512vbmi",
               "avx512vpopcntdq"})) {
    sets.push_back(avx512_kernels());
  }
  if (cpu_has({"sse4.2", "avx2", "fma"})) sets.push_back(avx2_kernels());
#endif
  sets.push_back(portable_kernels());
  return sets;
}

const KernelTable& kernels_named(const std::string& name) {
  std::string choices;
  for (const KernelTable* table : available_kernels()) {
    if (name == table->name) return *table;
    choices += choices.empty() ? "" : ", ";
    choices += table->name;
  }
  throw Error(ErrorCode::parameter,
              "QUANCRYPT_BACKEND is '" + name +
                  "', which this build and machine do not run; allowed: " + choices);
}

const KernelTable& kernels() {
  static const KernelTable& chosen = []() -> const KernelTable& {
    const char* forced = std::getenv("QUANCRYPT_BACKEND");
    if (forced != nullptr && *forced != '\0') return kernels_named(forced);
    return *available_kernels().front();
  }();
  return chosen;
}

Sha256 sha256_kernel() {
#if defined(__x86_64__)
  if (&kernels() != portable_kernels() && cpu_has({"ssse3", "sse4.1", "sha"})) return sha::sha256;
#endif
  return nullptr;
}

}  // namespace quancrypt::simd
