#include "ring/prng.h"

#include <algorithm>
#include <cstring>

#include "base/entropy.h"
#include "base/error.h"
#include "simd/dispatch.h"

namespace quancrypt {

Prng::Prng(const Seed& seed, StreamId id) : memory_(sizeof(Seed) + kBuffer) {
  std::memcpy(memory_.data(), seed.data(), sizeof(Seed));
  for (int i = 0; i < 8; ++i) nonce_[i] = static_cast<std::uint8_t>(id.index >> (8 * i));
  for (int i = 0; i < 4; ++i) nonce_[8 + i] = static_cast<std::uint8_t>(id.part >> (8 * i));
}

void Prng::read(std::uint8_t* out, std::size_t size) {
  const std::size_t buffered = std::min(left_, size);
  std::memcpy(out, buffer() + kBuffer - left_, buffered);
  left_ -= buffered;
  out += buffered;
  size -= buffered;
  // Whole buffers go straight to `out`.
  const std::size_t buffers = (size + kBuffer - 1) / kBuffer;
  if (buffers * kBufferBlocks > 0xFFFFFFFFU - counter_) {
    throw Error(ErrorCode::system, "a random stream is exhausted");
  }
  const std::size_t whole = size / kBuffer * kBufferBlocks;
  simd::kernels().chacha20(key(), nonce_, counter_, out, whole);
  counter_ += static_cast<std::uint32_t>(whole);
  out += whole * simd::kChaChaBlock;
  size -= whole * simd::kChaChaBlock;
  if (size > 0) {
    simd::kernels().chacha20(key(), nonce_, counter_, buffer(), kBufferBlocks);
    counter_ += kBufferBlocks;
    std::memcpy(out, buffer(), size);
    left_ = kBuffer - size;
  }
}

Seed fresh_seed() {
  Seed seed;
  fill_entropy(seed.data(), seed.size());
  return seed;
}

}  // namespace quancrypt
