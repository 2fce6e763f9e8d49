#include "base/entropy.h"

#include <cerrno>
#include <cstdio>

#include "base/error.h"

#if defined(__linux__)
#include <sys/random.h>
#endif

namespace quancrypt {
namespace {

bool read_urandom(std::uint8_t* out, std::size_t size) {
  std::FILE* file = std::fopen("/dev/urandom", "rb");
  if (file == nullptr) return false;
  std::setvbuf(file, nullptr, _IONBF, 0);  // no copy of the bytes stays in a buffer of stdio
  const std::size_t got = std::fread(out, 1, size, file);
  std::fclose(file);
  return got == size;
}

}  // namespace

void fill_entropy(std::uint8_t* out, std::size_t size) {
#if defined(__linux__)
  while (size > 0) {
    // getrandom returns at most 256 bytes uninterrupted; larger requests may come back short.
    const ssize_t got = getrandom(out, size < 256 ? size : 256, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      break;
    }
    out += got;
    size -= static_cast<std::size_t>(got);
  }
#endif
  if (size > 0 && !read_urandom(out, size)) {
    throw Error(ErrorCode::system, "the operating system gave no random bytes");
  }
}

}  // namespace quancrypt
