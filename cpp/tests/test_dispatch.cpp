// The choice of a kernel set: by CPU, by QUANCRYPT_BACKEND, and what is refused. `make test-old-cpu` runs
// this, and the tests of the portable set, on an emulated CPU that has no AVX.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "check.h"
#include "simd/cpu.h"
#include "simd/dispatch.h"

using namespace quancrypt;

namespace {

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const simd::KernelTable* set : simd::available_kernels()) names.emplace_back(set->name);
  return names;
}

bool runs(const std::string& name) {
  const auto names = available();
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

TEST(the_cpu_decides_which_sets_run) {
  const auto names = available();
  CHECK(names.back() == "portable");
  CHECK(std::is_sorted(names.begin(), names.end(), [](const auto& a, const auto& b) {
    const std::vector<std::string> order = {"avx512", "avx2", "portable"};  // best first
    return std::find(order.begin(), order.end(), a) < std::find(order.begin(), order.end(), b);
  }));
  CHECK(runs("avx2") == simd::cpu_has({"sse4.2", "avx2", "fma"}));
  CHECK(!runs("avx512") || simd::cpu_has({"avx512f", "avx512ifma"}));
  // Whoever knows the CPU says what is to be found on it.
  if (const char* expected = std::getenv("QUANCRYPT_TEST_SETS")) {
    std::string joined;
    for (const std::string& name : names) joined += (joined.empty() ? "" : " ") + name;
    CHECK(joined == expected);
  }
}

TEST(every_set_of_this_machine_has_every_kernel) {
  for (const std::string& name : available()) {
    const simd::KernelTable& set = simd::kernels_named(name);
    CHECK(set.name == name);
    CHECK(set.ntt_forward != nullptr && set.ntt_inverse != nullptr && set.multiply_add != nullptr);
    CHECK(set.chacha20 != nullptr && set.pack_fields != nullptr && set.unpack_fields != nullptr);
    CHECK(set.find_not_below != nullptr && set.crc32c != nullptr);
  }
}

TEST(sets_that_do_not_run_here_are_refused_by_name) {
  for (const std::string name : {"avx2", "avx512", "neon", "Portable", ""}) {
    if (runs(name)) continue;
    std::string message;
    try {
      simd::kernels_named(name);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::parameter);
      message = error.what();
    }
    CHECK(message.find("QUANCRYPT_BACKEND is '" + name + "'") == 0);
    for (const std::string& allowed : available()) {
      CHECK(message.find(allowed, message.find("allowed: ")) != std::string::npos);
    }
  }
}

TEST(the_environment_forces_a_set) {
  const char* forced = std::getenv("QUANCRYPT_BACKEND");
  CHECK(simd::kernels().name == (forced != nullptr ? std::string(forced) : available().front()));
}

int main() { return testing::run_all(); }
