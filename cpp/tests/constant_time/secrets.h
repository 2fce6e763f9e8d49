// No branch and no memory address depends on keys, noise or plaintexts. Secrets are marked as undefined
// memory (simd/constant_time.h), and valgrind or clang's MemorySanitizer reports what depends on them:
// `make test-constant-time`. What is declassified on the way is marked where it is computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "rlwe/keys.h"
#include "simd/constant_time.h"
#include "tests/check.h"
#include "tests/literals.h"

#if defined(QUANCRYPT_CONSTANT_TIME_MSAN)
#include <sanitizer/allocator_interface.h>

#include "tests/child.h"
#endif

namespace quancrypt::testing {

#if defined(QUANCRYPT_CONSTANT_TIME_MSAN)

/// Heap memory that held a secret and comes again holds none: containers are written to by code of the
/// standard library that is not instrumented, and MSAN_OPTIONS keeps malloc() from saying anything.
inline bool checker_runs() {
  const auto given = [](const volatile void* memory, std::size_t bytes) {
    __msan_unpoison(memory, bytes);
  };
  const auto taken = [](const volatile void* /*memory*/) {};
  return __sanitizer_install_malloc_and_free_hooks(given, taken) > 0;
}

/// MemorySanitizer takes every conversion instruction of AVX-512 for a use of its operand: the two
/// functions that quantize and dequantize are left to SECURITY.md's argument.
inline constexpr bool kKnowsConversions = false;

/// MemorySanitizer ends a process at the first report: each body has one of its own.
template <class Body>
bool leaks(const Body& body) {
  return !holds_in_child(body);
}

inline bool is_secret(const void* memory, std::size_t bytes) {
  return __msan_test_shadow(memory, bytes) >= 0;
}

#else

inline bool checker_runs() { return RUNNING_ON_VALGRIND != 0; }

inline constexpr bool kKnowsConversions = true;

template <class Body>
bool leaks(const Body& body) {
  const auto before = VALGRIND_COUNT_ERRORS;
  body();
  return VALGRIND_COUNT_ERRORS != before;
}

inline bool is_secret(const void* memory, std::size_t bytes) {
  std::vector<std::uint8_t> undefined(bytes);
  static_cast<void>(VALGRIND_GET_VBITS(memory, undefined.data(), bytes));
  return std::any_of(undefined.begin(), undefined.end(), [](std::uint8_t b) { return b != 0; });
}

#endif

template <class T>
void mark_secret(std::vector<T>& values) {
  QUANCRYPT_SECRET(values.data(), values.size() * sizeof(T));
}

template <class T>
void mark_public(std::vector<T>& values) {
  QUANCRYPT_PUBLIC(values.data(), values.size() * sizeof(T));
}

template <class T>
bool is_secret(const std::vector<T>& values) {
  return is_secret(values.data(), values.size() * sizeof(T));
}

inline std::mt19937_64 rng(17);  // NOLINT: a fixed seed, so that a failure repeats

inline std::vector<std::uint64_t> secret_residues(std::size_t n, std::uint64_t p) {
  std::vector<std::uint64_t> x(n);
  for (std::uint64_t& value : x) value = rng() % p;
  mark_secret(x);
  return x;
}

template <class Real>
std::vector<Real> secret_reals(std::size_t n) {
  std::vector<Real> x(n);
  for (Real& value : x) value = static_cast<Real>(rng() % 3000) / 1000 - Real{1.5};
  mark_secret(x);
  return x;
}

/// Without and with a special prime; one data prime and several.
inline std::vector<ParametersPtr> packed_shapes() {
  return {std::make_shared<const Parameters>(packed(1024, {27}, 1, 21)),
          std::make_shared<const Parameters>(packed(4096, {44, 43, 20}, 5, 17))};
}

/// The last has primes too large for the vector sets' own arithmetic.
inline std::vector<ParametersPtr> slot_shapes() {
  return {std::make_shared<const Parameters>(slots(1024, {27}, 18)),
          std::make_shared<const Parameters>(slots(4096, {36, 36, 37}, 30)),
          std::make_shared<const Parameters>(slots(8192, {60, 40, 40, 60}, 40))};
}

inline std::vector<std::uint8_t> secret_code(const SecretKey& key) {
  const SecureBuffer<std::uint8_t> code = key.save();
  return {code.data(), code.data() + code.size()};
}

}  // namespace quancrypt::testing
