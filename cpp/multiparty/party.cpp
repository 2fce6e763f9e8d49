#include "multiparty/party.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "base/entropy.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "multiparty/shamir.h"
#include "multiparty/smudging.h"
#include "ring/samplers.h"
#include "simd/arith.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"
#include "wire/residues.h"

namespace quancrypt {
namespace {

constexpr std::size_t kSharingSeed = 0;
constexpr std::size_t kErrorSeed = 1;
constexpr std::size_t kSeeds = 2;

/// Buffers of one worker of partial_decryption.
struct Workspace {
  explicit Workspace(const Parameters& parameters)
      : noise(parameters.degree()),
        piece(kUniformPiece),
        smudging(parameters.ring(), parameters.literal().smudging_bits) {}

  SecureBuffer<std::uint64_t> noise;  // [degree]: smudging modulo one prime
  SecureBuffer<std::uint64_t> piece;  // of c1, becomes one of the partial decryption
  Smudging smudging;
  UniformScratch uniform;
  std::deque<Prng> streams;  // of masks
};

/// What is read next comes from main memory while the CPU has something else to do.
void prefetch(const void* from, std::size_t bytes) {
  constexpr std::size_t kLine = 64;
  for (std::size_t at = 0; at < bytes; at += kLine) {
    __builtin_prefetch(static_cast<const std::uint8_t*>(from) + at);
  }
}

void require_point(const Parameters& parameters, std::size_t point) {
  const std::size_t parties = parameters.literal().parties;
  if (point < 1 || point > parties) {
    throw Error(ErrorCode::parameter,
                "point " + std::to_string(point) + "; allowed: 1 to " + std::to_string(parties));
  }
}

}  // namespace

Party::Party(ParametersPtr parameters, std::size_t point, std::size_t threshold, SecretKey secret)
    : parameters_(std::move(parameters)),
      point_(point),
      threshold_(threshold),
      secret_(std::move(secret)),
      seeds_(kSeeds, MemoryUse::key),
      share_(parameters_->data_primes() * parameters_->degree(), MemoryUse::key) {
  require_point(*parameters_, point);
  if (threshold < 1 || threshold > parameters_->literal().parties) {
    throw Error(ErrorCode::parameter, "threshold is " + std::to_string(threshold) +
                                          "; allowed: 1 to " +
                                          std::to_string(parameters_->literal().parties));
  }
}

Party::Party(ParametersPtr parameters, std::size_t point, std::size_t threshold)
    : Party(parameters, point, threshold, SecretKey::generate(parameters)) {
  fill_entropy(seeds_.data()->data(), kSeeds * sizeof(Seed));
  QUANCRYPT_SECRET(seeds_.data(), kSeeds * sizeof(Seed));
  for (std::size_t i = 0; i < parameters_->data_primes(); ++i) {
    add_deal(point_, i, share_.data() + i * parameters_->degree());
  }
}

Party Party::load(ParametersPtr parameters, std::size_t point, std::size_t threshold,
                  const std::uint8_t* data, std::size_t size) {
  const std::size_t key = parameters->degree() / 4;
  const std::size_t seeds = kSeeds * sizeof(Seed);
  const std::size_t expected = key + seeds + parameters->polynomial_bytes();
  if (size != expected) {
    throw Error(ErrorCode::wire_format, "party state has " + std::to_string(size) +
                                            " bytes; expected " + std::to_string(expected));
  }
  Party party(parameters, point, threshold, SecretKey::load(parameters, data, key));
  std::memcpy(party.seeds_.data(), data + key, seeds);
  QUANCRYPT_DECLASSIFY(residues_below, data + key + seeds, parameters->polynomial_bytes());
  unpack_polynomial(parameters->ring(), parameters->data_primes(), data + key + seeds,
                    party.share_.data());
  QUANCRYPT_SECRET(party.share_.data(), party.share_.size() * sizeof(std::uint64_t));
  return party;
}

SecureBuffer<std::uint8_t> Party::save() const {
  const SecureBuffer<std::uint8_t> key = secret_.save();
  const std::size_t seeds = kSeeds * sizeof(Seed);
  SecureBuffer<std::uint8_t> out(key.size() + seeds + parameters_->polynomial_bytes(),
                                 MemoryUse::key);
  std::memcpy(out.data(), key.data(), key.size());
  std::memcpy(out.data() + key.size(), seeds_.data(), seeds);
  pack_polynomial(parameters_->ring(), parameters_->data_primes(), share_.data(),
                  out.data() + key.size() + seeds);
  return out;
}

std::vector<std::uint8_t> Party::public_share(const Seed& common) const {
  const RnsRing& ring = parameters_->ring();
  const simd::KernelTable& kernels = simd::kernels();
  const std::size_t n = ring.degree();
  SecureBuffer<std::int8_t> error(n);
  SecureBuffer<std::uint8_t> scratch(6 * n);
  SecureBuffer<std::uint64_t> negated(n);
  std::vector<std::uint64_t> a(n);
  std::vector<std::uint64_t> b(ring.prime_count() * n);
  Prng noise(seeds_[kErrorSeed], {kKeyIndex, kSecretPart});
  sample_centred_binomial(noise, error.data(), n, scratch.data());
  for (std::size_t i = 0; i < ring.prime_count(); ++i) {
    const Modulus& modulus = ring.modulus(i);
    Prng prng(common, {kKeyIndex, static_cast<std::uint32_t>(i)});
    sample_uniform(prng, a.data(), n, modulus);
    std::fill_n(negated.data(), n, std::uint64_t{0});
    kernels.subtract_small(negated.data(), error.data(), n, modulus);  // -e
    kernels.ntt_forward(negated.data(), ring.ntt(i));
    kernels.multiply_subtract(b.data() + i * n, a.data(), secret_.ntt(i), negated.data(), n,
                              modulus);
  }
  QUANCRYPT_DECLASSIFY(public_key, b.data(), b.size() * sizeof(std::uint64_t));
  std::vector<std::uint8_t> out(polynomial_bytes(ring, ring.prime_count()));
  pack_polynomial(ring, ring.prime_count(), b.data(), out.data());
  return out;
}

void Party::add_deal(std::size_t point, std::size_t i, std::uint64_t* row) const {
  const RnsRing& ring = parameters_->ring();
  const simd::KernelTable& kernels = simd::kernels();
  const Modulus& modulus = ring.modulus(i);
  const std::size_t n = ring.degree();
  kernels.add(row, secret_.ntt(i), n, modulus);
  std::uint64_t power = 1;
  for (std::size_t k = 1; k < threshold_; ++k) {
    Prng prng(seeds_[kSharingSeed], {k, static_cast<std::uint32_t>(i)});
    power = simd::multiply_mod(power, point, modulus);
    add_scaled_uniform(prng, row, n, power, modulus);
  }
}

void Party::deal(std::size_t point, std::uint8_t* out) const {
  require_point(*parameters_, point);
  const std::size_t n = parameters_->degree();
  SecureBuffer<std::uint64_t> value(parameters_->data_primes() * n);
  for (std::size_t i = 0; i < parameters_->data_primes(); ++i) {
    add_deal(point, i, value.data() + i * n);
  }
  pack_polynomial(parameters_->ring(), parameters_->data_primes(), value.data(), out);
}

void Party::receive(const std::uint8_t* data, std::size_t size) {
  if (size != parameters_->polynomial_bytes()) {
    throw Error(ErrorCode::wire_format, "a deal has " + std::to_string(size) + " bytes; expected " +
                                            std::to_string(parameters_->polynomial_bytes()));
  }
  const RnsRing& ring = parameters_->ring();
  const std::size_t n = ring.degree();
  SecureBuffer<std::uint64_t> value(parameters_->data_primes() * n);
  QUANCRYPT_DECLASSIFY(residues_below, data, size);
  unpack_polynomial(ring, parameters_->data_primes(), data, value.data());
  QUANCRYPT_SECRET(value.data(), value.size() * sizeof(std::uint64_t));
  for (std::size_t i = 0; i < parameters_->data_primes(); ++i) {
    simd::kernels().add(share_.data() + i * n, value.data() + i * n, n, ring.modulus(i));
  }
}

std::vector<std::uint32_t> Party::partial_decryption(const BodyView& body, std::size_t ciphertexts,
                                                     const std::vector<std::size_t>& points,
                                                     const SecureBuffer<PairMask>& masks,
                                                     const Seed& request, std::uint8_t* out) const {
  const RnsRing& ring = parameters_->ring();
  const simd::KernelTable& kernels = simd::kernels();
  const std::size_t n = ring.degree();
  const std::size_t primes = parameters_->data_primes();
  if (body.seed) throw Error(ErrorCode::parameter, "a seeded ciphertext has no joint key");
  if (points.size() < threshold_ || masks.size() + 1 != points.size()) {
    throw Error(ErrorCode::parameter, "there are " + std::to_string(points.size()) +
                                          " points and " + std::to_string(masks.size()) +
                                          " masks; threshold: " + std::to_string(threshold_));
  }
  check_body_size(*parameters_, body, ciphertexts);
  SecureBuffer<std::uint64_t> key(primes * n, MemoryUse::key);  // lambda share
  for (std::size_t i = 0; i < primes; ++i) {
    const Modulus& modulus = ring.modulus(i);
    const std::uint64_t lambda = lagrange_at_zero(point_, points, modulus);
    kernels.scale_add(key.data() + i * n, share_.data() + i * n, lambda,
                      simd::shoup(lambda, modulus), n, modulus);
  }
  const SecretSeed noise_seed(request);
  std::vector<std::uint32_t> checksums(ciphertexts);
  std::vector<std::optional<Workspace>> workspaces(num_threads());
  parallel_for(ciphertexts, workspaces.size(), [&](std::size_t index, std::size_t worker) {
    if (!workspaces[worker]) workspaces[worker].emplace(*parameters_);
    Workspace& w = *workspaces[worker];
    const std::uint8_t* from = polynomial_data(*parameters_, body, index, 1);
    std::uint8_t* part = out + index * parameters_->polynomial_bytes();
    std::uint8_t* to = part;
    Prng noise(noise_seed.get(), {index, kSecretPart});
    w.smudging.sample(noise);
    for (std::size_t i = 0; i < primes; ++i) {
      const Modulus& modulus = ring.modulus(i);
      const std::size_t bytes = kUniformPiece / 8 * modulus.bits;
      w.smudging.residues(i, w.noise.data());
      kernels.ntt_forward(w.noise.data(), ring.ntt(i));
      w.streams.clear();
      for (std::size_t k = 0; k < masks.size(); ++k) {
        w.streams.emplace_back(masks[k].seed, StreamId{index, static_cast<std::uint32_t>(i)});
      }
      // All that is done with a piece is done while it lies in the L1 cache.
      for (std::size_t at = 0; at < n; at += kUniformPiece, from += bytes, to += bytes) {
        std::uint64_t* d = w.piece.data();
        const std::uint64_t* share = key.data() + i * n + at;
        if (at + kUniformPiece < n) {
          prefetch(from + bytes, bytes);
          prefetch(share + kUniformPiece, kUniformPiece * sizeof(std::uint64_t));
        }
        unpack_residues(ring, i, at, kUniformPiece, from, d);
        kernels.multiply_add(d, d, share, w.noise.data() + at, kUniformPiece, modulus);
        for (std::size_t k = 0; k < masks.size(); ++k) {
          add_uniform(w.streams[k], d, masks[k].negative, modulus, w.uniform);
        }
        kernels.pack_bits(d, kUniformPiece, modulus.bits, to);
      }
    }
    QUANCRYPT_DECLASSIFY(ciphertext, part, parameters_->polynomial_bytes());
    checksums[index] = kernels.crc32c(0, part, parameters_->polynomial_bytes());
  });
  return checksums;
}

}  // namespace quancrypt
