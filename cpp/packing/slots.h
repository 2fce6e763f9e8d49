// The standard CKKS encoding: a message of N / 2 numbers is evaluated at the primitive 2N-th roots of
// unity (Cheon, Kim, Kim, Song: "Homomorphic encryption for arithmetic of approximate numbers",
// ASIACRYPT 2017), in the order of Microsoft SEAL's encoder, whose plaintexts come out bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/secure_buffer.h"
#include "packing/plaintext.h"
#include "ring/ring.h"

namespace quancrypt {

/// Roots and order of slots of one ring, and what puts residues together. Immutable.
class SlotLayout {
 public:
  /// The first `primes` primes of `ring` are the data modulus; messages are scaled by 2^scale_bits.
  SlotLayout(const RnsRing& ring, std::size_t primes, unsigned scale_bits);

  [[nodiscard]] const simd::SlotTable& table() const noexcept { return table_; }
  [[nodiscard]] std::size_t slots() const noexcept { return place_.size(); }
  [[nodiscard]] double scale() const noexcept { return scale_; }
  [[nodiscard]] const std::vector<Modulus>& moduli() const noexcept { return moduli_; }
  /// Where slot v stands in "rows" order (simd/slot_transform.h).
  [[nodiscard]] std::size_t place(std::size_t v) const { return place_[v]; }
  /// Inverse of prime j modulo prime i, j < i (Garner).
  [[nodiscard]] std::uint64_t garner(std::size_t i, std::size_t j) const {
    return garner_[i * moduli_.size() + j];
  }

 private:
  double scale_;
  std::vector<Modulus> moduli_;
  std::vector<std::uint64_t> garner_;
  std::vector<std::uint32_t> place_;
  std::vector<double> roots_;  // what table_ points to
  simd::SlotTable table_;
};

class SlotSource final : public PlaintextSource {
 public:
  /// `values`: `count` finite doubles, small enough for the modulus, slots() to a ciphertext.
  SlotSource(const SlotLayout& layout, const double* values, std::size_t count,
             std::size_t workers);
  [[nodiscard]] std::size_t workers() const override { return workspaces_.size(); }
  void fill(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

 private:
  struct Workspace {
    SecureBuffer<double> rows;
    SecureBuffer<double> coefficients;
    SecureBuffer<std::int64_t> integers;
  };

  const SlotLayout& layout_;
  const double* values_;
  std::size_t count_;
  std::vector<Workspace> workspaces_;
};

class SlotSink final : public PlaintextSink {
 public:
  /// out[v] = slot value * factor, for `count` values.
  SlotSink(const SlotLayout& layout, float* out, std::size_t count, double factor,
           std::size_t workers);
  [[nodiscard]] std::size_t workers() const override { return workspaces_.size(); }
  void take(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

 private:
  struct Workspace {
    SecureBuffer<double> coefficients;
    SecureBuffer<double> rows;
  };

  const SlotLayout& layout_;
  float* out_;
  std::size_t count_;
  double factor_;
  std::vector<Workspace> workspaces_;
};

}  // namespace quancrypt
