#include "base/wipe.h"

#include <cstring>

namespace quancrypt {

void wipe(void* data, std::size_t size) noexcept {
  if (size == 0) return;
  std::memset(data, 0, size);
  // The barrier tells the compiler that somebody may read the zeros.
  asm volatile("" : : "r"(data) : "memory");
}

}  // namespace quancrypt
