// The standard CKKS slot encoding (canonical embedding), by SEAL's encoder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "packing/plaintext.h"
#include "seal_bridge/context.h"

namespace quancrypt::seal_bridge {

class SlotSource final : public PlaintextSource {
 public:
  /// `values`: `count` finite doubles, degree / 2 to a ciphertext.
  SlotSource(const Context& context, const double* values, std::size_t count);
  [[nodiscard]] PlaintextForm form() const override { return PlaintextForm::evaluations; }
  void fill(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

 private:
  const Context& context_;
  ::seal::CKKSEncoder encoder_;
  const double* values_;
  std::size_t count_;
};

class SlotSink final : public PlaintextSink {
 public:
  /// out[v] = slot value * factor, for `count` values.
  SlotSink(const Context& context, float* out, std::size_t count, double factor);
  [[nodiscard]] PlaintextForm form() const override { return PlaintextForm::evaluations; }
  void take(std::size_t index, std::size_t worker, std::uint64_t* residues) override;

 private:
  const Context& context_;
  ::seal::CKKSEncoder encoder_;
  float* out_;
  std::size_t count_;
  double factor_;
};

}  // namespace quancrypt::seal_bridge
