#pragma once

#include <string>
#include <vector>

namespace quancrypt::simd {

/// What the CPU has and the operating system saves on a context switch (xgetbv), in lower case:
/// "sse4.2", "avx2", "bmi2", "aes", "avx512f", "avx512ifma", ... Empty on other architectures.
std::vector<std::string> cpu_features();

/// All of `names` are among cpu_features().
bool cpu_has(const std::vector<std::string>& names);

}  // namespace quancrypt::simd
