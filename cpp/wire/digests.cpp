#include "wire/digests.h"

#include <algorithm>
#include <cstring>

#include "base/thread_pool.h"
#include "simd/dispatch.h"

namespace quancrypt {

std::vector<Digest> sha256_each(const std::uint8_t* first, std::size_t size, std::size_t step,
                                std::size_t count) {
  const simd::Sha256 sha256 = simd::sha256_kernel();
  if (sha256 == nullptr) return {};
  std::vector<Digest> digests(count);
  // Groups of even size, at least one for each thread.
  const std::size_t threads = num_threads();
  const std::size_t groups =
      std::max((count + simd::kSha256Texts - 1) / simd::kSha256Texts, std::min(count, threads));
  parallel_for(groups, threads, [&](std::size_t group, std::size_t) {
    const std::size_t begin = count * group / groups;
    const std::size_t texts = count * (group + 1) / groups - begin;
    const std::uint8_t* from[simd::kSha256Texts] = {};
    std::uint8_t out[simd::kSha256Texts][32];
    for (std::size_t i = 0; i < texts; ++i) from[i] = first + (begin + i) * step;
    sha256(from, texts, size, out);
    for (std::size_t i = 0; i < texts; ++i) std::memcpy(digests[begin + i].data(), out[i], 32);
  });
  return digests;
}

}  // namespace quancrypt
