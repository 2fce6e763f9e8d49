// Secret bytes for Python: writable through the buffer protocol, wiped when the object goes away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/secure_buffer.h"

namespace quancrypt::bindings {

class SecretBytes {
 public:
  explicit SecretBytes(std::size_t size) : memory_(size, MemoryUse::key) {}
  explicit SecretBytes(SecureBuffer<std::uint8_t> memory) : memory_(std::move(memory)) {}

  [[nodiscard]] std::uint8_t* data() noexcept { return memory_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return memory_.size(); }

 private:
  SecureBuffer<std::uint8_t> memory_;
};

}  // namespace quancrypt::bindings
