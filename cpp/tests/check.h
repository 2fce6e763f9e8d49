// A test is a function registered with TEST(name); CHECK prints what failed and where, and the
// executable's exit status counts the failures.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "simd/dispatch.h"

namespace quancrypt::testing {

struct Case {
  std::string name;
  std::function<void()> run;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> list;
  return list;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(std::string name, std::function<void()> run) {
    cases().push_back({std::move(name), std::move(run)});
  }
};

/// The kernel set that QUANCRYPT_BACKEND asks for runs on this machine, or none is asked for.
inline bool backend_runs_here() {
  const char* forced = std::getenv("QUANCRYPT_BACKEND");
  if (forced == nullptr || *forced == '\0') return true;
  for (const simd::KernelTable* set : simd::available_kernels()) {
    if (std::string(forced) == set->name) return true;
  }
  return false;
}

inline int run_all() {
  if (!backend_runs_here()) {
    std::printf("this machine does not run the kernels '%s'\n", std::getenv("QUANCRYPT_BACKEND"));
    return 77;  // tests/CMakeLists.txt: skipped
  }
  for (const Case& test : cases()) {
    const int before = failures();
    try {
      test.run();
    } catch (const std::exception& error) {
      std::printf("  unexpected exception: %s\n", error.what());
      ++failures();
    }
    std::printf("%s  %s\n", failures() == before ? "ok  " : "FAIL", test.name.c_str());
  }
  std::printf("%zu tests, %d failures\n", cases().size(), failures());
  return failures() == 0 && !cases().empty() ? 0 : 1;
}

}  // namespace quancrypt::testing

#define TEST(name)                                                               \
  static void test_##name();                                                     \
  static const quancrypt::testing::Register register_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::printf("  %s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      ++quancrypt::testing::failures();                                           \
    }                                                                             \
  } while (false)

/// CHECK that `statement` throws quancrypt::Error with the given code.
#define CHECK_ERROR(expected, statement)      \
  do {                                        \
    bool caught = false;                      \
    try {                                     \
      statement;                              \
    } catch (const quancrypt::Error& error) { \
      caught = error.code() == (expected);    \
    }                                         \
    CHECK(caught && #statement);              \
  } while (false)
