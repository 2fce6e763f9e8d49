#include "simd/dispatch.h"

#include <cstdlib>

#include "base/error.h"

namespace quancrypt::simd {

std::vector<const KernelTable*> available_kernels() { return {portable_kernels()}; }

const KernelTable& kernels_named(const std::string& name) {
  std::string choices;
  for (const KernelTable* table : available_kernels()) {
    if (name == table->name) return *table;
    choices += choices.empty() ? "" : ", ";
    choices += table->name;
  }
  throw Error(ErrorCode::parameter, "QUANCRYPT_BACKEND is '" + name +
                                        "', which this build and machine do not run; allowed: " +
                                        choices);
}

const KernelTable& kernels() {
  static const KernelTable& chosen = []() -> const KernelTable& {
    const char* forced = std::getenv("QUANCRYPT_BACKEND");
    if (forced != nullptr && *forced != '\0') return kernels_named(forced);
    return *available_kernels().front();
  }();
  return chosen;
}

}  // namespace quancrypt::simd
