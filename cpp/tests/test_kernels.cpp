// Every kernel of every set that this machine runs equals the portable one: random content, extreme
// operands, lengths around vector widths, unaligned buffers.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "check.h"
#include "packing/layout.h"
#include "ring/ring.h"
#include "simd/arith.h"
#include "simd/dispatch.h"

using namespace quancrypt;

__extension__ using Int128 = __int128;

namespace {

std::mt19937_64 rng(11);  // NOLINT: a fixed seed, so that a failure repeats

/// A buffer whose first element lies `shift` bytes off any alignment.
template <class T>
class Unaligned {
 public:
  Unaligned(std::size_t size, std::size_t shift) : bytes_(size * sizeof(T) + 128), size_(size) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    data_ = reinterpret_cast<T*>(bytes_.data() + (64 - address % 64) % 64 + shift * sizeof(T));
  }
  Unaligned(const Unaligned&) = delete;
  Unaligned& operator=(const Unaligned&) = delete;
  T* data() { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  bool operator==(Unaligned& other) {
    return std::memcmp(data_, other.data_, size_ * sizeof(T)) == 0;
  }

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t size_;
  T* data_;
};

void fill_residues(std::uint64_t* x, std::size_t n, std::uint64_t p) {
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = i % 7 == 0 ? p - 1 : i % 11 == 0 ? 0 : rng() % p;
  }
}

std::vector<const simd::KernelTable*> others() {
  auto sets = simd::available_kernels();
  sets.pop_back();  // portable
  return sets;
}

const simd::KernelTable& portable() { return *simd::portable_kernels(); }

const std::size_t kLengths[] = {8, 16, 24, 40, 64, 72, 136, 1024};

}  // namespace

TEST(pointwise_kernels_agree) {
  for (const std::uint32_t bits : {20U, 27U, 41U, 48U, 50U, 51U, 55U, 60U}) {
    const Modulus m = make_modulus(find_primes(1024, bits, 1, {})[0]);
    for (const std::size_t n : kLengths) {
      for (const std::size_t shift : {0U, 1U, 3U}) {
        Unaligned<std::uint64_t> a(n, shift), b(n, shift), c(n, shift), x(n, shift), y(n, shift);
        Unaligned<std::int8_t> e(n, shift);
        fill_residues(a.data(), n, m.p);
        fill_residues(b.data(), n, m.p);
        fill_residues(c.data(), n, m.p);
        for (std::size_t i = 0; i < n; ++i) e[i] = static_cast<std::int8_t>(int(rng() % 43) - 21);
        const std::uint64_t w = rng() % m.p;
        const std::uint64_t offset = n % 3 == 0 ? m.p - 1 : rng() % m.p;
        Unaligned<std::uint64_t> wide(n, shift);
        for (std::size_t i = 0; i < n; ++i) {
          wide[i] = i % 3 == 0 ? (std::uint64_t{1} << 63) - 1 - i : rng() >> (1 + i % 50);
          if (i % 2 == 0) wide[i] = 0 - wide[i];
        }
        const auto run = [&](const simd::KernelTable& set, Unaligned<std::uint64_t>& out,
                             int which) {
          std::memcpy(out.data(), c.data(), 8 * n);
          switch (which) {
            case 0:
              set.multiply_add(out.data(), a.data(), b.data(), c.data(), n, m);
              break;
            case 1:
              set.multiply_subtract(out.data(), a.data(), b.data(), out.data(), n, m);
              break;
            case 2:
              set.add(out.data(), a.data(), n, m);
              break;
            case 3:
              set.scale_add(out.data(), a.data(), w, simd::shoup(w, m), n, m);
              break;
            case 4:
              set.subtract_scale(out.data(), a.data(), w, simd::shoup(w, m), n, m);
              break;
            case 5:
              set.remainder(out.data(), reinterpret_cast<const std::int64_t*>(wide.data()), offset,
                            n, m);
              break;
            case 6:
              set.lift_small(out.data(), e.data(), n, m);
              break;
            default:
              set.subtract_small(out.data(), e.data(), n, m);
          }
        };
        for (int which = 0; which < 8; ++which) {
          run(portable(), x, which);
          for (std::size_t i = 0; i < n; ++i) CHECK(x[i] < m.p);
          for (const simd::KernelTable* set : others()) {
            run(*set, y, which);
            CHECK(x == y);
          }
        }
        // The portable kernel against plain arithmetic.
        run(portable(), x, 0);
        for (std::size_t i = 0; i < n; ++i) {
          CHECK(x[i] == static_cast<std::uint64_t>((simd::u128(a[i]) * b[i] + c[i]) % m.p));
        }
        run(portable(), x, 1);
        for (std::size_t i = 0; i < n; ++i) {
          CHECK((simd::u128(x[i]) + simd::u128(a[i]) * b[i]) % m.p == c[i]);
        }
        run(portable(), x, 4);
        for (std::size_t i = 0; i < n; ++i) {
          CHECK(x[i] == static_cast<std::uint64_t>(simd::u128(c[i] + m.p - a[i]) * w % m.p));
        }
        run(portable(), x, 5);
        for (std::size_t i = 0; i < n; ++i) {
          const auto signed_x = static_cast<Int128>(static_cast<std::int64_t>(wide[i]));
          const auto p = static_cast<Int128>(m.p);
          CHECK(static_cast<Int128>((x[i] + offset) % m.p) == (signed_x % p + p) % p);
        }
        run(portable(), x, 6);
        for (std::size_t i = 0; i < n; ++i) {
          CHECK(static_cast<std::int64_t>(x[i]) ==
                (e[i] < 0 ? static_cast<std::int64_t>(m.p) : 0) + e[i]);
        }
        Unaligned<std::uint64_t> z(n, shift);
        std::memcpy(z.data(), a.data(), 8 * n);
        for (const simd::KernelTable* set : simd::available_kernels()) {
          CHECK(set->find_not_below(z.data(), n, m.p) == n);
          z[n - 1] = m.p;
          CHECK(set->find_not_below(z.data(), n, m.p) == n - 1);
          CHECK(set->find_not_below(z.data(), n - 1, m.p) == n - 1);
          z[2] = ~std::uint64_t{0};
          CHECK(set->find_not_below(z.data(), n, m.p) == 2);
          std::memcpy(z.data(), a.data(), 8 * n);
        }
      }
    }
  }
}

TEST(bit_packing_agrees_and_inverts) {
  for (std::uint32_t bits = 1; bits <= 60; ++bits) {
    for (const std::size_t n : kLengths) {
      for (const std::size_t shift : {0U, 1U}) {
        Unaligned<std::uint64_t> x(n, shift), back(n, shift);
        for (std::size_t i = 0; i < n; ++i) {
          x[i] = (i % 5 == 0 ? ~std::uint64_t{0} : rng()) & ((std::uint64_t{1} << bits) - 1);
        }
        // One byte more than the packed size must stay untouched.
        const std::size_t size = n / 8 * bits;
        Unaligned<std::uint8_t> packed(size + 1, shift);
        packed[size] = 0xA5;
        portable().pack_bits(x.data(), n, bits, packed.data());
        portable().unpack_bits(packed.data(), n, bits, back.data());
        CHECK(x == back);
        CHECK(packed[size] == 0xA5);
        for (const simd::KernelTable* set : others()) {
          Unaligned<std::uint8_t> theirs(size + 1, shift);
          theirs[size] = 0xA5;
          set->pack_bits(x.data(), n, bits, theirs.data());
          CHECK(packed == theirs);
          Unaligned<std::uint64_t> again(n, shift);
          set->unpack_bits(packed.data(), n, bits, again.data());
          CHECK(x == again);
        }
      }
    }
  }
}

TEST(packed_numbers_are_added_and_taken_off) {
  // 65537 is just above a power of two: every other number is not below it and counts for nothing.
  std::vector<std::uint64_t> primes = {65537};
  for (const std::uint32_t bits : {14U, 20U, 43U, 47U, 50U, 55U, 57U, 58U, 60U}) {
    primes.push_back(find_primes(bits < 15 ? 1024 : 4096, bits, 1, {})[0]);
  }
  for (const std::uint64_t prime : primes) {
    const Modulus m = make_modulus(prime);
    for (const std::size_t n : kLengths) {
      for (const bool negative : {false, true}) {
        Unaligned<std::uint64_t> x(n, 0), old(n, 1);
        fill_residues(old.data(), n, m.p);
        bool all = true;
        for (std::size_t i = 0; i < n; ++i) {
          x[i] = n % 16 == 0 ? rng() % m.p : rng() >> (64 - m.bits);
          if (i % 9 == 0) x[i] = i % 2 == 0 ? m.p - 1 : 0;
          if (n == 24 && i == 23) x[i] = m.p;
          all = all && x[i] < m.p;
        }
        Unaligned<std::uint8_t> packed(n / 8 * m.bits, 1);
        portable().pack_bits(x.data(), n, m.bits, packed.data());
        for (const simd::KernelTable* set : simd::available_kernels()) {
          Unaligned<std::uint64_t> sum(n, 1);
          std::memcpy(sum.data(), old.data(), 8 * n);
          CHECK(set->add_bits(packed.data(), n, negative, sum.data(), m) == all);
          for (std::size_t i = 0; i < n; ++i) {
            const std::uint64_t term = x[i] < m.p ? x[i] : 0;
            CHECK(sum[i] == (negative ? old[i] + m.p - term : old[i] + term) % m.p);
          }
        }
      }
    }
  }
}

TEST(scale_add_takes_numbers_of_fifty_bits) {
  for (const std::uint32_t bits : {20U, 43U, 50U, 55U}) {
    const Modulus m = make_modulus(find_primes(1024, bits, 1, {})[0]);
    std::vector<std::uint64_t> x(64), old(64);
    fill_residues(old.data(), old.size(), m.p);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = i % 5 == 0 ? (std::uint64_t{1} << 50) - 1 - i : rng() >> 14;
    }
    for (const std::uint64_t w : {std::uint64_t{1}, m.p - 1, rng() % m.p}) {
      for (const simd::KernelTable* set : simd::available_kernels()) {
        std::vector<std::uint64_t> sum = old;
        set->scale_add(sum.data(), x.data(), w, simd::shoup(w, m), sum.size(), m);
        for (std::size_t i = 0; i < x.size(); ++i) {
          CHECK(sum[i] == static_cast<std::uint64_t>((simd::u128(x[i]) * w + old[i]) % m.p));
        }
      }
    }
  }
}

TEST(random_kernels_agree) {
  std::uint8_t key[32];
  std::uint8_t nonce[12];
  for (std::uint8_t& byte : key) byte = static_cast<std::uint8_t>(rng());
  for (std::uint8_t& byte : nonce) byte = static_cast<std::uint8_t>(rng());
  for (std::size_t blocks = 0; blocks <= 100; ++blocks) {
    Unaligned<std::uint8_t> x(blocks * 64, blocks % 5);
    portable().chacha20(key, nonce, 0xFFFFFF00U, x.data(), blocks);
    for (const simd::KernelTable* set : others()) {
      Unaligned<std::uint8_t> y(blocks * 64, blocks % 3);
      set->chacha20(key, nonce, 0xFFFFFF00U, y.data(), blocks);
      CHECK(x == y);
    }
  }
  for (const std::size_t n : kLengths) {
    Unaligned<std::uint8_t> random(6 * n, 1);
    for (std::size_t i = 0; i < 6 * n; ++i) random[i] = static_cast<std::uint8_t>(rng());
    std::memset(random.data() + 6, 0xFF, 3);  // extreme: +21
    std::memset(random.data() + 9, 0x00, 3);
    Unaligned<std::int8_t> x(n, 1), y(n, 1);
    portable().sample_centred_binomial(random.data(), x.data(), n);
    CHECK(x[1] == 21);
    for (const simd::KernelTable* set : others()) {
      set->sample_centred_binomial(random.data(), y.data(), n);
      CHECK(x == y);
    }
    for (const std::size_t length : {n, n - 1, n - 3}) {
      CHECK(portable().sample_ternary(random.data(), x.data(), length) == length);
      for (const simd::KernelTable* set : others()) {
        CHECK(set->sample_ternary(random.data(), y.data(), length) == length);
        CHECK(std::memcmp(x.data(), y.data(), length) == 0);
      }
    }
    std::memset(random.data() + 4 * (n - 2), 0, 4);
    for (const simd::KernelTable* set : simd::available_kernels()) {
      CHECK(set->sample_ternary(random.data(), y.data(), n) == n - 2);
    }
  }
}

TEST(quantizers_agree) {
  for (const std::size_t n : {1U, 7U, 8U, 15U, 16U, 17U, 31U, 33U, 1000U}) {
    Unaligned<float> f(n, 1);
    Unaligned<double> d(n, 1);
    Unaligned<std::uint32_t> dither(n, 1);
    for (std::size_t i = 0; i < n; ++i) {
      d[i] = (static_cast<double>(rng() % 20001) - 10000) / 7000;
      if (i % 13 == 3) d[i] = 0.5 / 127;  // a tie
      if (i % 13 == 5) d[i] = -1e30;
      if (i % 13 == 6) d[i] = -0.0;
      f[i] = static_cast<float>(d[i]);
      dither[i] = i % 17 == 0 ? 0xFFFFFFFF : static_cast<std::uint32_t>(rng());
    }
    for (const std::int32_t q_max : {1, 7, 127, 32767}) {
      for (const std::uint32_t* random : {static_cast<const std::uint32_t*>(nullptr),
                                          static_cast<const std::uint32_t*>(dither.data())}) {
        Unaligned<std::uint16_t> x(n, 1), y(n, 1);
        const float scale = static_cast<float>(q_max / 1.1);
        CHECK(portable().quantize_f32(f.data(), n, 1.1F, scale, q_max, random, x.data()) == n);
        for (std::size_t i = 0; i < n; ++i) CHECK(x[i] <= 2 * q_max);
        for (const simd::KernelTable* set : others()) {
          CHECK(set->quantize_f32(f.data(), n, 1.1F, scale, q_max, random, y.data()) == n);
          CHECK(x == y);
        }
        CHECK(portable().quantize_f64(d.data(), n, 1.1, q_max / 1.1, q_max, random, x.data()) == n);
        for (const simd::KernelTable* set : others()) {
          CHECK(set->quantize_f64(d.data(), n, 1.1, q_max / 1.1, q_max, random, y.data()) == n);
          CHECK(x == y);
        }
      }
    }
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
          -std::numeric_limits<double>::infinity()}) {
      const std::size_t at = n / 2;
      d[at] = bad;
      f[at] = static_cast<float>(bad);
      Unaligned<std::uint16_t> y(n, 1);
      for (const simd::KernelTable* set : simd::available_kernels()) {
        CHECK(set->quantize_f32(f.data(), n, 1.0F, 127.0F, 127, nullptr, y.data()) == at);
        CHECK(set->quantize_f64(d.data(), n, 1.0, 127.0, 127, nullptr, y.data()) == at);
        CHECK(set->quantize_f32(f.data(), n, 1.0F, 127.0F, 127, dither.data(), y.data()) == at);
      }
      d[at] = 0;
      f[at] = 0;
    }
    Unaligned<std::uint32_t> fields(n, 1);
    for (std::size_t i = 0; i < n; ++i) fields[i] = static_cast<std::uint32_t>(rng());
    Unaligned<float> x(n, 1), y(n, 1);
    portable().dequantize(fields.data(), n, 2147483648, 0.05 / 127 / 3, x.data());
    for (const simd::KernelTable* set : others()) {
      set->dequantize(fields.data(), n, 2147483648, 0.05 / 127 / 3, y.data());
      CHECK(x == y);
    }
  }
}

TEST(field_packing_agrees_and_inverts) {
  struct Shape {
    std::size_t n;
    std::vector<std::uint32_t> bits;
    std::uint32_t fields, field_bits, guard_bits;
  };
  const Shape shapes[] = {{1024, {27}, 1, 12, 10},
                          {2048, {46}, 3, 12, 10},
                          {4096, {41, 41}, 6, 12, 10},
                          {4096, {43, 43}, 2, 32, 22},
                          {8192, {48, 48, 47, 47}, 15, 12, 10},
                          {8192, {49, 49, 49}, 46, 3, 8},
                          {8192, {50, 50, 49, 49}, 96, 2, 6},
                          {16384, {47, 47, 47, 47, 46, 46, 46, 46, 46}, 34, 12, 10}};
  for (const Shape& shape : shapes) {
    std::vector<std::uint64_t> primes;
    for (const std::uint32_t bits : shape.bits) {
      primes.push_back(find_primes(shape.n, bits, 1, primes)[0]);
    }
    const RnsRing ring(shape.n, primes);
    const PackLayout layout(ring, primes.size(), shape.fields, shape.field_bits, shape.guard_bits);
    const std::size_t values = layout.values();
    const std::uint64_t most =
        std::min<std::uint64_t>(65534, (std::uint64_t{1} << shape.field_bits) - 2);
    std::vector<std::uint16_t> fields(values);
    for (std::size_t i = 0; i < values; ++i) {
      fields[i] = static_cast<std::uint16_t>(i % 3 == 0 ? most : rng() % (most + 1));
    }
    std::vector<std::uint64_t> residues(primes.size() * shape.n);
    portable().pack_fields(fields.data(), shape.n, layout.table(), residues.data());
    for (const simd::KernelTable* set : others()) {
      std::vector<std::uint64_t> theirs(residues.size());
      set->pack_fields(fields.data(), shape.n, layout.table(), theirs.data());
      CHECK(theirs == residues);
    }
    // The largest noise that the guard bits hold, both signs.
    const std::uint64_t noise = (std::uint64_t{1} << (shape.guard_bits - 1)) - 1;
    for (std::size_t i = 0; i < primes.size(); ++i) {
      for (std::size_t c = 0; c < shape.n; ++c) {
        std::uint64_t& r = residues[i * shape.n + c];
        const std::uint64_t e = noise % primes[i];
        r = c % 2 == 0 ? simd::add_mod(r, e, primes[i]) : simd::sub_mod(r, e, primes[i]);
      }
    }
    for (const simd::KernelTable* set : simd::available_kernels()) {
      std::vector<std::uint32_t> out(values);
      CHECK(
          set->unpack_fields(residues.data(), shape.n, layout.table(), {most, noise}, out.data()));
      CHECK(std::equal(out.begin(), out.end(), fields.begin()));
      CHECK(!set->unpack_fields(residues.data(), shape.n, layout.table(), {most, noise - 1},
                                out.data()));
      CHECK(!set->unpack_fields(residues.data(), shape.n, layout.table(), {most - 1, noise},
                                out.data()));
      auto garbage = residues;
      fill_residues(garbage.data(), shape.n, primes[0]);
      CHECK(!set->unpack_fields(garbage.data(), shape.n, layout.table(), {most / 2, noise},
                                out.data()));
    }
  }
}

TEST(checksums_agree) {
  std::vector<std::uint8_t> data(70000);
  for (std::uint8_t& byte : data) byte = static_cast<std::uint8_t>(rng());
  for (const std::size_t size : {0U, 1U, 7U, 8U, 9U, 63U, 64U, 65U, 255U, 1000U, 4096U, 65537U}) {
    for (const std::size_t shift : {0U, 1U, 5U}) {
      const std::uint32_t expected = portable().crc32c(0x12345678, data.data() + shift, size);
      for (const simd::KernelTable* set : others()) {
        CHECK(set->crc32c(0x12345678, data.data() + shift, size) == expected);
      }
    }
  }
}

int main() { return testing::run_all(); }
