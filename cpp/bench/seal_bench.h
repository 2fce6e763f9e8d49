// Microsoft SEAL's own operations on the same ring degree, primes and plaintexts, timed as ours are.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "seal_bridge/context.h"

namespace quancrypt::bench {

/// Context, keys, plaintexts and ciphertexts are made once, from SEAL's default memory pool and with
/// its default generator; streams are uncompressed. A plaintext holds random integers in the packed
/// layout, or random slots.
class SealBench {
 public:
  /// Encrypts, decrypts and compares once; throws Error(system) if SEAL's answer is wrong.
  /// `context` must outlive this object.
  explicit SealBench(const seal_bridge::Context& context);
  ~SealBench();

  /// encrypt_symmetric, encrypt_symmetric_save (seeded), encrypt_public, decrypt, add,
  /// load_add (of the seeded stream), ntt_forward, ntt_inverse (modulo the first prime),
  /// random_bytes; with the plaintext's NTT or the slot encoding included:
  /// encode_encrypt_symmetric_save, encode_encrypt_public, decrypt_decode.
  [[nodiscard]] std::vector<std::string> operations() const;

  // Both throw Error(parameter) at an unknown operation, naming the known ones.

  /// Seconds of `repeat` runs on one ciphertext.
  double run(const std::string& operation, std::size_t repeat);
  /// Bytes that one run writes, reads or makes; 0 where that says nothing.
  [[nodiscard]] std::size_t bytes(const std::string& operation) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quancrypt::bench
