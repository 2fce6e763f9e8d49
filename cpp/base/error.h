// The one exception type of the native core. bindings/ translates the code into a Python class.
#pragma once

#include <stdexcept>
#include <string>

namespace quancrypt {

enum class ErrorCode {
  parameter,    ///< an argument is out of its documented range
  capacity,     ///< a sum would exceed the weight that the parameters hold exactly
  wire_format,  ///< serialized data is malformed
  decryption,   ///< a plaintext is not a valid sum under this key
  system,       ///< the operating system refused something (entropy, threads)
};

/// Messages never carry key material, plaintexts or noise.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace quancrypt
