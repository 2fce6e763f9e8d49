// CRC-32C of a whole out of the checksums of its pieces, so that pieces are summed where they are made.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quancrypt {

/// Joins checksums for pieces of one length: a checksum is linear, so the one of what stands before is
/// advanced over as many zero bytes (M. Adler, zlib's crc32_combine).
class Crc32cJoin {
 public:
  explicit Crc32cJoin(std::size_t piece_bytes);

  /// Checksum of a text and a piece after it.
  [[nodiscard]] std::uint32_t operator()(std::uint32_t before, std::uint32_t piece) const {
    return table_[0][before & 0xFF] ^ table_[1][before >> 8 & 0xFF] ^
           table_[2][before >> 16 & 0xFF] ^ table_[3][before >> 24] ^ piece;
  }

 private:
  std::uint32_t table_[4][256];  // byte k of a checksum, advanced
};

}  // namespace quancrypt
