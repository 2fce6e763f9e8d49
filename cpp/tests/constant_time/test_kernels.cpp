// Kernels: transforms, arithmetic, samplers, quantization.
#include <numeric>

#include "packing/quantize_pack.h"
#include "ring/samplers.h"
#include "rlwe/security.h"
#include "secrets.h"
#include "simd/arith.h"
#include "simd/dispatch.h"

using namespace quancrypt;
using namespace quancrypt::testing;

TEST(transforms) {
  for (const std::uint32_t bits : {27U, 47U, 50U, 51U, 60U}) {
    const RnsRing ring(2048, {find_primes(2048, bits, 1, {})[0]});
    std::vector<std::uint64_t> x = secret_residues(2048, ring.modulus(0).p);
    const auto transform = [&] {
      simd::kernels().ntt_forward(x.data(), ring.ntt(0));
      CHECK(is_secret(x));
      simd::kernels().ntt_inverse(x.data(), ring.ntt(0));
      CHECK(is_secret(x));
    };
    CHECK(!leaks(transform));
  }
}

TEST(pointwise_arithmetic) {
  const simd::KernelTable& kernels = simd::kernels();
  constexpr std::size_t n = 136;
  for (const std::uint32_t bits : {27U, 47U, 50U, 51U, 60U}) {
    const Modulus m = make_modulus(find_primes(1024, bits, 1, {})[0]);
    const std::vector<std::uint64_t> a = secret_residues(n, m.p);
    const std::vector<std::uint64_t> b = secret_residues(n, m.p);
    const std::vector<std::uint64_t> wide = secret_residues(n, std::uint64_t{1} << 62);
    const auto* integers = reinterpret_cast<const std::int64_t*>(wide.data());
    std::vector<std::int8_t> small(n);
    for (std::int8_t& e : small) e = static_cast<std::int8_t>(static_cast<int>(rng() % 43) - 21);
    mark_secret(small);
    const std::uint64_t w = rng() % m.p;
    std::vector<std::uint64_t> x = secret_residues(n, m.p);
    const auto compute = [&] {
      kernels.multiply_add(x.data(), a.data(), b.data(), x.data(), n, m);
      kernels.multiply_subtract(x.data(), a.data(), b.data(), x.data(), n, m);
      kernels.add(x.data(), a.data(), n, m);
      kernels.scale_add(x.data(), a.data(), w, simd::shoup(w, m), n, m);
      kernels.subtract_scale(x.data(), a.data(), w, simd::shoup(w, m), n, m);
      kernels.subtract_small(x.data(), small.data(), n, m);
      CHECK(is_secret(x));
      kernels.lift_small(x.data(), small.data(), n, m);
      CHECK(is_secret(x));
      kernels.remainder(x.data(), integers, w, n, m);
      CHECK(is_secret(x));
    };
    CHECK(!leaks(compute));
  }
}

TEST(bits_of_residues) {
  const simd::KernelTable& kernels = simd::kernels();
  for (const std::uint32_t bits : {3U, 27U, 44U, 57U, 60U}) {
    std::vector<std::uint64_t> x = secret_residues(64, std::uint64_t{1} << bits);
    std::vector<std::uint8_t> bytes(8 * bits);
    const auto pack = [&] {
      kernels.pack_bits(x.data(), x.size(), bits, bytes.data());
      kernels.unpack_bits(bytes.data(), x.size(), bits, x.data());
      CHECK(is_secret(x));
    };
    CHECK(!leaks(pack));
  }
}

TEST(secret_samplers) {
  for (const std::size_t n : {1024U, 1032U}) {
    std::vector<std::int8_t> small(n);
    std::vector<std::uint8_t> scratch(6 * n);
    const auto sample = [&] {
      const SecretSeed seed;
      Prng prng(seed.get(), {0, kSecretPart});
      sample_ternary(prng, small.data(), n, scratch.data());
      CHECK(is_secret(small));
      sample_centred_binomial(prng, small.data(), n, scratch.data());
      CHECK(is_secret(small));
    };
    CHECK(!leaks(sample));
  }
}

TEST(quantization) {
  if (!kKnowsConversions) return;
  const simd::KernelTable& kernels = simd::kernels();
  constexpr std::size_t n = 1037;
  const std::vector<float> f = secret_reals<float>(n);
  const std::vector<double> d = secret_reals<double>(n);
  std::vector<std::uint32_t> words(n);
  for (std::uint32_t& word : words) word = static_cast<std::uint32_t>(rng());
  mark_secret(words);
  std::vector<std::uint16_t> q(n);
  for (const std::uint32_t* dither : {static_cast<const std::uint32_t*>(nullptr),
                                      static_cast<const std::uint32_t*>(words.data())}) {
    const auto quantize = [&] {
      CHECK(kernels.quantize_f32(f.data(), n, 1.1F, 115.0F, 127, dither, q.data()) == n);
      CHECK(is_secret(q));
      CHECK(kernels.quantize_f64(d.data(), n, 1.1, 115.0, 127, dither, q.data()) == n);
      CHECK(is_secret(q));
    };
    CHECK(!leaks(quantize));
  }
  std::vector<float> back(n);
  const auto dequantize = [&] {
    kernels.dequantize(words.data(), n, 127 * 16, 0.05, back.data());
    CHECK(is_secret(back));
  };
  CHECK(!leaks(dequantize));
}
