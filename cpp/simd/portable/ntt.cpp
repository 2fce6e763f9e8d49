// Negacyclic number-theoretic transform with Harvey's lazy butterflies: values stay in [0, 4p)
// (forward) or [0, 2p) (inverse) between the stages and are reduced once at the end; p < 2^60.
#include "simd/arith.h"
#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {

void ntt_forward(std::uint64_t* x, const NttTable& table) {
  const std::uint64_t p = table.modulus.p;
  const std::uint64_t two_p = p << 1;
  const std::size_t n = std::size_t{1} << table.log_n;
  std::size_t gap = n >> 1;
  for (std::size_t groups = 1; groups < n; groups <<= 1, gap >>= 1) {
    for (std::size_t i = 0; i < groups; ++i) {
      const std::uint64_t w = table.root[groups + i];
      const std::uint64_t w_shoup = table.root_shoup[groups + i];
      std::uint64_t* lo = x + 2 * i * gap;
      std::uint64_t* hi = lo + gap;
      for (std::size_t j = 0; j < gap; ++j) {
        const std::uint64_t u = reduce_once(lo[j], two_p);            // [0, 2p)
        const std::uint64_t v = multiply_lazy(hi[j], w, w_shoup, p);  // [0, 2p)
        lo[j] = u + v;                                                // [0, 4p)
        hi[j] = u + two_p - v;                                        // [0, 4p)
      }
    }
  }
  for (std::size_t j = 0; j < n; ++j) x[j] = reduce_once(reduce_once(x[j], two_p), p);
}

void ntt_inverse(std::uint64_t* x, const NttTable& table) {
  const std::uint64_t p = table.modulus.p;
  const std::uint64_t two_p = p << 1;
  const std::size_t n = std::size_t{1} << table.log_n;
  std::size_t gap = 1;
  for (std::size_t groups = n >> 1; groups >= 1; groups >>= 1, gap <<= 1) {
    for (std::size_t i = 0; i < groups; ++i) {
      const std::uint64_t w = table.inverse_root[groups + i];
      const std::uint64_t w_shoup = table.inverse_root_shoup[groups + i];
      std::uint64_t* lo = x + 2 * i * gap;
      std::uint64_t* hi = lo + gap;
      for (std::size_t j = 0; j < gap; ++j) {
        const std::uint64_t u = lo[j];  // [0, 2p)
        const std::uint64_t v = hi[j];  // [0, 2p)
        lo[j] = reduce_once(u + v, two_p);
        hi[j] = multiply_lazy(u + two_p - v, w, w_shoup, p);
      }
    }
  }
  for (std::size_t j = 0; j < n; ++j) {
    x[j] = reduce_once(multiply_lazy(x[j], table.inverse_n, table.inverse_n_shoup, p), p);
  }
}

}  // namespace quancrypt::simd::portable
