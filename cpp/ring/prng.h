// Deterministic streams out of a 32-byte key: ChaCha20 (RFC 8439), 12-byte nonce, 32-bit counter.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/entropy.h"
#include "base/secure_buffer.h"
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

/// One stream, read in order. Its key and its buffer lie in secure memory.
class Prng {
 public:
  Prng(const Seed& seed, StreamId id);
  Prng(const Prng&) = delete;
  Prng& operator=(const Prng&) = delete;

  /// The next `size` bytes. Throws Error(system) beyond 2^38 bytes (the counter's range).
  void read(std::uint8_t* out, std::size_t size);

 private:
  // What the widest kernel makes at a time: nothing of its work is thrown away.
  static constexpr std::size_t kBufferBlocks = 32;

  static constexpr std::size_t kBuffer = kBufferBlocks * simd::kChaChaBlock;

  [[nodiscard]] const std::uint8_t* key() const noexcept { return memory_.data(); }
  [[nodiscard]] std::uint8_t* buffer() noexcept { return memory_.data() + sizeof(Seed); }

  SecureBuffer<std::uint8_t> memory_;  // key, then buffer
  std::uint8_t nonce_[12];
  std::uint32_t counter_ = 0;
  std::size_t left_ = 0;  // unread bytes at the end of the buffer
};

/// 32 fresh bytes of the operating system.
Seed fresh_seed();

/// A secret seed: fresh bytes in secure memory, wiped when it goes out of scope.
class SecretSeed {
 public:
  SecretSeed() {
    fill_entropy(seed_[0].data(), sizeof(Seed));
    QUANCRYPT_SECRET(seed_.data(), sizeof(Seed));
  }
  /// Fresh bytes, exclusive or `other`: uniform if either is, whatever the one tells of the other's use.
  explicit SecretSeed(const Seed& other) : SecretSeed() {
    for (std::size_t i = 0; i < sizeof(Seed); ++i) {
      seed_[0][i] = static_cast<std::uint8_t>(seed_[0][i] ^ other[i]);
    }
  }
  SecretSeed(const SecretSeed&) = delete;
  SecretSeed& operator=(const SecretSeed&) = delete;
  [[nodiscard]] const Seed& get() const noexcept { return seed_[0]; }

 private:
  SecureBuffer<Seed> seed_{1, MemoryUse::key};
};

}  // namespace quancrypt
