// Element-wise arithmetic modulo one prime. No branch and no index depends on the data.
#include "simd/arith.h"
#include "simd/portable/portable.h"

namespace quancrypt::simd::portable {

void multiply_add(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                  const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = reduce_128(static_cast<u128>(a[i]) * b[i] + c[i], modulus);
  }
}

void multiply_subtract(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                       const std::uint64_t* c, std::size_t n, const Modulus& modulus) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = sub_mod(c[i], multiply_mod(a[i], b[i], modulus), modulus.p);
  }
}

void add(std::uint64_t* sum, const std::uint64_t* x, std::size_t n, const Modulus& modulus) {
  for (std::size_t i = 0; i < n; ++i) sum[i] = add_mod(sum[i], x[i], modulus.p);
}

void scale_add(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
               std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  const std::uint64_t p = modulus.p;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t product = reduce_once(multiply_lazy(x[i], weight, weight_shoup, p), p);
    sum[i] = add_mod(sum[i], product, p);
  }
}

void subtract_scale(std::uint64_t* x, const std::uint64_t* y, std::uint64_t weight,
                    std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus) {
  const std::uint64_t p = modulus.p;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t difference = x[i] + p - y[i];  // (0, 2p)
    x[i] = reduce_once(multiply_lazy(difference, weight, weight_shoup, p), p);
  }
}

void remainder(std::uint64_t* out, const std::int64_t* x, std::uint64_t offset, std::size_t n,
               const Modulus& modulus) {
  for (std::size_t i = 0; i < n; ++i) {
    const auto sign = static_cast<std::uint64_t>(x[i] >> 63);  // all ones if negative
    const std::uint64_t magnitude = (static_cast<std::uint64_t>(x[i]) ^ sign) - sign;
    const std::uint64_t r = reduce_128(magnitude, modulus);
    const std::uint64_t signed_r = sub_mod(r & ~sign, r & sign, modulus.p);
    out[i] = sub_mod(signed_r, offset, modulus.p);
  }
}

void lift_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  for (std::size_t i = 0; i < n; ++i) {
    const auto small = static_cast<std::int64_t>(e[i]);
    x[i] =
        static_cast<std::uint64_t>(small) + (modulus.p & static_cast<std::uint64_t>(small >> 63));
  }
}

void subtract_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus) {
  const std::uint64_t p = modulus.p;
  for (std::size_t i = 0; i < n; ++i) {
    // x - e in (-p, 2p): add p if negative, then take p off if too large.
    const std::uint64_t y = x[i] - static_cast<std::uint64_t>(static_cast<std::int64_t>(e[i]));
    x[i] = reduce_once(y + (p & (0 - (y >> 63))), p);
  }
}

std::size_t find_not_below(const std::uint64_t* x, std::size_t n, std::uint64_t bound) {
  for (std::size_t i = 0; i < n; ++i) {
    if (x[i] >= bound) return i;
  }
  return n;
}

}  // namespace quancrypt::simd::portable
