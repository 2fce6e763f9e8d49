// Every kernel of one set on prepared random operands, timed without Python in the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rlwe/parameters.h"
#include "simd/kernels.h"

namespace quancrypt::bench {

/// What one run of a kernel does: the units of the tables in docs/performance.md.
struct Work {
  std::size_t elements;         ///< coefficients, values or bytes: what time is divided by
  std::size_t bytes;            ///< read and written, each operand once
  std::size_t random_bytes;     ///< made (chacha20) or used up (samplers)
  std::size_t multiplications;  ///< modulo a prime
};

class KernelBench {
 public:
  /// Operands for the ring and the layout of `parameters`, modulo prime number `prime`; the same for
  /// every set if `seed` is the same. Buffers start `offset` bytes (0 to 63, rounded down to whole
  /// elements) after a multiple of 64. Throws Error(parameter) if a number is out of range.
  KernelBench(ParametersPtr parameters, const simd::KernelTable& set, std::size_t prime,
              std::size_t offset, std::uint64_t seed);
  ~KernelBench();

  /// Names as in simd::KernelTable, those of the parameters' encoding only, and "memcpy" as the
  /// yardstick.
  [[nodiscard]] std::vector<std::string> kernels() const;

  // The functions below throw Error(parameter) at an unknown kernel, naming the known ones.

  /// Seconds of `repeat` runs, each on the result of the one before where a kernel works in place.
  double run(const std::string& kernel, std::size_t repeat);
  /// Checksum of all operands and the returned value after one run from the start state.
  [[nodiscard]] std::uint64_t digest(const std::string& kernel) const;
  [[nodiscard]] Work work(const std::string& kernel) const;

 private:
  struct Operands;
  struct Entry;
  static const std::vector<Entry>& entries();
  [[nodiscard]] bool has_tables(const Entry& entry) const;
  [[nodiscard]] const Entry& entry(const std::string& kernel) const;
  [[nodiscard]] std::unique_ptr<Operands> prepare() const;

  ParametersPtr parameters_;
  const simd::KernelTable& set_;
  std::size_t prime_;
  std::size_t offset_;
  std::uint64_t seed_;
  std::unique_ptr<Operands> operands_;
};

}  // namespace quancrypt::bench
