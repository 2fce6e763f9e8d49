// Arrays of secrets: 64-byte aligned, move-only, zero at first and zeroed at the end.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "base/secure_memory.h"

namespace quancrypt {

template <class T>
class SecureBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  SecureBuffer() = default;
  /// `size` elements, all zero.
  explicit SecureBuffer(std::size_t size, MemoryUse use = MemoryUse::working)
      : size_(size), use_(use) {
    if (size > 0) data_ = static_cast<T*>(acquire_secure(size * sizeof(T), use));
  }
  ~SecureBuffer() { release(); }

  SecureBuffer(const SecureBuffer&) = delete;
  SecureBuffer& operator=(const SecureBuffer&) = delete;
  SecureBuffer(SecureBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        use_(other.use_) {}
  SecureBuffer& operator=(SecureBuffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      use_ = other.use_;
    }
    return *this;
  }

  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] const T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }

 private:
  void release() noexcept {
    if (data_ == nullptr) return;
    release_secure(data_, size_ * sizeof(T), use_);
    data_ = nullptr;
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
  MemoryUse use_ = MemoryUse::working;
};

}  // namespace quancrypt
