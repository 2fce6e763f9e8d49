// Deterministic streams out of a 32-byte key: ChaCha20 (RFC 8439), 12-byte nonce, 32-bit counter.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/wipe.h"
#include "simd/constant_time.h"
#include "simd/kernels.h"

namespace quancrypt {

using Seed = std::array<std::uint8_t, 32>;

/// A nonce: which ciphertext of the update (or key_index) and which part of it.
struct StreamId {
  std::uint64_t index;
  std::uint32_t part;
};

inline constexpr std::uint64_t kKeyIndex = ~std::uint64_t{0};  ///< streams of keys, not ciphertexts
inline constexpr std::uint32_t kSecretPart = 0x80000000;       ///< u, e; below: prime indices of c1
inline constexpr std::uint32_t kDitherPart = 0x80000001;       ///< stochastic rounding

/// One stream, read in order. Wipes its key and its buffer.
class Prng {
 public:
  Prng(const Seed& seed, StreamId id);
  ~Prng();
  Prng(const Prng&) = delete;
  Prng& operator=(const Prng&) = delete;

  /// The next `size` bytes. Throws Error(system) beyond 2^38 bytes (the counter's range).
  void read(std::uint8_t* out, std::size_t size);

 private:
  // What the widest kernel makes at a time: nothing of its work is thrown away.
  static constexpr std::size_t kBufferBlocks = 32;

  std::uint8_t key_[32];
  std::uint8_t nonce_[12];
  std::uint32_t counter_ = 0;
  std::uint8_t buffer_[kBufferBlocks * simd::kChaChaBlock];
  std::size_t left_ = 0;  // unread bytes at the end of buffer_
};

/// 32 fresh bytes of the operating system.
Seed fresh_seed();

/// A secret seed: fresh bytes, wiped when it goes out of scope.
class SecretSeed {
 public:
  SecretSeed() : seed_(fresh_seed()) { QUANCRYPT_SECRET(seed_.data(), seed_.size()); }
  /// Fresh bytes, exclusive or `other`: uniform if either is, whatever the one tells of the other's use.
  explicit SecretSeed(const Seed& other) : SecretSeed() {
    for (std::size_t i = 0; i < seed_.size(); ++i) {
      seed_[i] = static_cast<std::uint8_t>(seed_[i] ^ other[i]);
    }
  }
  ~SecretSeed() { wipe(seed_.data(), seed_.size()); }
  SecretSeed(const SecretSeed&) = delete;
  SecretSeed& operator=(const SecretSeed&) = delete;
  [[nodiscard]] const Seed& get() const noexcept { return seed_; }

 private:
  Seed seed_;
};

}  // namespace quancrypt
