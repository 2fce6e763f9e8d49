// What an encryptor reads plaintexts from and a decryptor writes them to, one ciphertext at a time.
// Plaintexts are in coefficient form. Two encodings: integers packed into coefficients, CKKS slots.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quancrypt {

class PlaintextSource {
 public:
  virtual ~PlaintextSource() = default;
  /// How many workspaces there are: fill may run on so many threads.
  [[nodiscard]] virtual std::size_t workers() const = 0;
  /// Fills residues[i * degree + c], in [0, p_i), for ciphertext `index`. Called from several
  /// threads, each index once. `worker` selects a workspace.
  virtual void fill(std::size_t index, std::size_t worker, std::uint64_t* residues) = 0;
};

class PlaintextSink {
 public:
  virtual ~PlaintextSink() = default;
  [[nodiscard]] virtual std::size_t workers() const = 0;
  /// Takes the residues of ciphertext `index`; may overwrite them. As above.
  virtual void take(std::size_t index, std::size_t worker, std::uint64_t* residues) = 0;
};

}  // namespace quancrypt
