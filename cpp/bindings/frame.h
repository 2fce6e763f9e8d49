// A serialized object (quancrypt_native/wire.py) whose body is written in place: no copy of it is made.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/secure_memory.h"
#include "simd/dispatch.h"
#include "wire/checksum.h"

namespace quancrypt::bindings {

namespace py = pybind11;

class Frame {
 public:
  /// `prefix`: everything that stands before the body.
  Frame(std::string_view prefix, std::size_t body_bytes)
      : bytes_(py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(
            nullptr, static_cast<py::ssize_t>(prefix.size() + body_bytes + kTrailer)))),
        body_(prefix.size()),
        trailer_(prefix.size() + body_bytes) {
    if (!bytes_) throw py::error_already_set();
    expect_filling(data(), trailer_ + kTrailer);
    std::memcpy(data(), prefix.data(), prefix.size());
  }

  [[nodiscard]] std::uint8_t* body() { return data() + body_; }

  /// Appends the CRC-32C of all before; `pieces`: of each polynomial of the body. Needs no GIL.
  void seal(const Crc32cJoin& join, const std::vector<std::uint32_t>& pieces) {
    std::uint32_t crc = simd::kernels().crc32c(0, data(), body_);
    for (const std::uint32_t piece : pieces) crc = join(crc, piece);
    for (std::size_t i = 0; i < kTrailer; ++i) {
      data()[trailer_ + i] = static_cast<std::uint8_t>(crc >> (8 * i));
    }
  }

  [[nodiscard]] py::bytes bytes() && { return std::move(bytes_); }

 private:
  static constexpr std::size_t kTrailer = 4;

  std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(bytes_.ptr())); }

  py::bytes bytes_;
  std::size_t body_;
  std::size_t trailer_;
};

}  // namespace quancrypt::bindings
