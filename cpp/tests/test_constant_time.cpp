// No branch and no memory address depends on keys, noise or plaintexts. Secrets are marked as undefined
// memory (simd/constant_time.h), and valgrind or clang's MemorySanitizer reports what depends on them:
// `make test-constant-time`. What is declassified on the way is marked where it is computed.
#include <algorithm>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "check.h"
#include "literals.h"
#include "multiparty/combine.h"
#include "multiparty/party.h"
#include "multiparty/smudging.h"
#include "packing/quantize_pack.h"
#include "packing/rescale.h"
#include "packing/slots.h"
#include "packing/unpack_dequantize.h"
#include "ring/samplers.h"
#include "rlwe/decryptor.h"
#include "rlwe/encryptor.h"
#include "rlwe/security.h"
#include "simd/arith.h"
#include "simd/constant_time.h"
#include "simd/dispatch.h"

#if defined(QUANCRYPT_CONSTANT_TIME_MSAN)
#include <sanitizer/allocator_interface.h>

#include "child.h"
#endif

using namespace quancrypt;
using quancrypt::testing::packed;
using quancrypt::testing::slots;

namespace {

#if defined(QUANCRYPT_CONSTANT_TIME_MSAN)

/// Heap memory that held a secret and comes again holds none: containers are written to by code of the
/// standard library that is not instrumented, and MSAN_OPTIONS keeps malloc() from saying anything.
bool checker_runs() {
  const auto given = [](const volatile void* memory, std::size_t bytes) {
    __msan_unpoison(memory, bytes);
  };
  const auto taken = [](const volatile void* /*memory*/) {};
  return __sanitizer_install_malloc_and_free_hooks(given, taken) > 0;
}

/// MemorySanitizer takes every conversion instruction of AVX-512 for a use of its operand: the two
/// functions that quantize and dequantize are left to SECURITY.md's argument.
constexpr bool kKnowsConversions = false;

/// MemorySanitizer ends a process at the first report: each body has one of its own.
template <class Body>
bool leaks(const Body& body) {
  return !testing::holds_in_child(body);
}

bool is_secret(const void* memory, std::size_t bytes) {
  return __msan_test_shadow(memory, bytes) >= 0;
}

#else

bool checker_runs() { return RUNNING_ON_VALGRIND != 0; }

constexpr bool kKnowsConversions = true;

template <class Body>
bool leaks(const Body& body) {
  const auto before = VALGRIND_COUNT_ERRORS;
  body();
  return VALGRIND_COUNT_ERRORS != before;
}

bool is_secret(const void* memory, std::size_t bytes) {
  std::vector<std::uint8_t> undefined(bytes);
  static_cast<void>(VALGRIND_GET_VBITS(memory, undefined.data(), bytes));
  return std::any_of(undefined.begin(), undefined.end(), [](std::uint8_t b) { return b != 0; });
}

#endif

template <class T>
void mark_secret(std::vector<T>& values) {
  QUANCRYPT_SECRET(values.data(), values.size() * sizeof(T));
}

template <class T>
void mark_public(std::vector<T>& values) {
  QUANCRYPT_PUBLIC(values.data(), values.size() * sizeof(T));
}

template <class T>
bool is_secret(const std::vector<T>& values) {
  return is_secret(values.data(), values.size() * sizeof(T));
}

std::mt19937_64 rng(17);  // NOLINT: a fixed seed, so that a failure repeats

std::vector<std::uint64_t> secret_residues(std::size_t n, std::uint64_t p) {
  std::vector<std::uint64_t> x(n);
  for (std::uint64_t& value : x) value = rng() % p;
  mark_secret(x);
  return x;
}

template <class Real>
std::vector<Real> secret_reals(std::size_t n) {
  std::vector<Real> x(n);
  for (Real& value : x) value = static_cast<Real>(rng() % 3000) / 1000 - Real{1.5};
  mark_secret(x);
  return x;
}

/// Without and with a special prime; one data prime and several.
std::vector<ParametersPtr> packed_shapes() {
  return {std::make_shared<const Parameters>(packed(1024, {27}, 1, 21)),
          std::make_shared<const Parameters>(packed(4096, {44, 43, 20}, 5, 17))};
}

/// The last has primes too large for the vector sets' own arithmetic.
std::vector<ParametersPtr> slot_shapes() {
  return {std::make_shared<const Parameters>(slots(1024, {27}, 18)),
          std::make_shared<const Parameters>(slots(4096, {36, 36, 37}, 30)),
          std::make_shared<const Parameters>(slots(8192, {60, 40, 40, 60}, 40))};
}

std::vector<std::uint8_t> secret_code(const SecretKey& key) {
  const SecureBuffer<std::uint8_t> code = key.save();
  return {code.data(), code.data() + code.size()};
}

}  // namespace

// --- The test itself: what leaks is found, what does not is not reported ---

TEST(a_branch_on_a_secret_is_found) {
  std::vector<std::uint64_t> secret(1, 5);
  volatile std::uint64_t taken = 0;
  mark_secret(secret);
  const auto branch = [&] {
    if ((secret[0] & 1) != 0) taken = 1;
  };
  CHECK(leaks(branch));
}

TEST(an_index_from_a_secret_is_found) {
  std::vector<std::uint64_t> secret(1, 5);
  const std::vector<std::uint64_t> table(16, 3);
  volatile std::uint64_t read = 0;
  mark_secret(secret);
  const auto look_up = [&] { read = table[secret[0]]; };
  CHECK(leaks(look_up));
}

TEST(functions_for_public_numbers_are_found_when_given_secrets) {
  const Modulus modulus = make_modulus(find_primes(1024, 41, 1, {})[0]);
  std::vector<std::uint64_t> x = secret_residues(64, modulus.p);
  volatile std::size_t at = 0;
  const auto find = [&] { at = simd::kernels().find_not_below(x.data(), x.size(), modulus.p); };
  CHECK(leaks(find));
  const auto sample = [&] {
    const SecretSeed seed;
    Prng prng(seed.get(), {0, kSecretPart});
    std::vector<std::uint64_t> out(1024);
    sample_uniform(prng, out.data(), out.size(), modulus);
  };
  CHECK(leaks(sample));
}

TEST(what_is_declassified_may_be_branched_on) {
  std::vector<std::uint64_t> secret(1, 5);
  volatile std::uint64_t taken = 0;
  mark_secret(secret);
  CHECK(is_secret(secret));
  mark_public(secret);
  CHECK(!is_secret(secret));
  const auto branch = [&] {
    if ((secret[0] & 1) != 0) taken = 1;
  };
  CHECK(!leaks(branch));
}

// --- Kernels ---

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

// --- Keys and ciphertexts ---

TEST(keys_are_made_saved_and_loaded) {
  std::vector<ParametersPtr> shapes = packed_shapes();
  for (const ParametersPtr& parameters : slot_shapes()) shapes.push_back(parameters);
  for (const ParametersPtr& parameters : shapes) {
    const auto make = [&] {
      const SecretKey key = SecretKey::generate(parameters);
      std::vector<std::uint8_t> code = secret_code(key);
      CHECK(is_secret(code));
      const SecretKey again = SecretKey::load(parameters, code.data(), code.size());
      CHECK(is_secret(again.ntt(0), parameters->degree() * sizeof(std::uint64_t)));
      std::vector<std::uint8_t> second = secret_code(again);
      mark_public(code);
      mark_public(second);
      CHECK(code == second);
      const PublicKey public_key = PublicKey::generate(key);
      CHECK(!is_secret(public_key.save()));
    };
    CHECK(!leaks(make));
  }
}

namespace {

/// A ciphertext of `segment`'s values, decrypted to floats and to integers.
void encrypt_and_decrypt(const SecretKey& key, const PublicKey* public_key,
                         const InputSegment& segment, const std::optional<Seed>& dither) {
  const Parameters& parameters = *key.parameters();
  const std::size_t values = segment.count;
  QuantizePackSource source(parameters.layout(), parameters.degree(), {segment}, parameters.q_max(),
                            dither, 1);
  const SecretSeed noise;
  std::optional<Seed> seed;
  std::vector<std::uint8_t> body(body_bytes(parameters, 1, public_key == nullptr));
  if (public_key == nullptr) {
    seed = fresh_seed();
    encrypt_symmetric(key, source, 1, *seed, noise.get(), body.data());
  } else {
    encrypt_public(*public_key, source, 1, noise.get(), body.data());
  }
  CHECK(source.first_bad() == values);
  CHECK(!is_secret(body));
  const auto q_max = static_cast<std::uint64_t>(parameters.q_max());
  const simd::SumLimits limits = {2 * q_max, parameters.literal().noise_bound};
  std::vector<float> reals(values);
  std::vector<std::int64_t> whole(values);
  for (const bool integers : {false, true}) {
    if (!integers && !kKnowsConversions) continue;
    void* out = reals.data();
    if (integers) out = whole.data();
    UnpackDequantizeSink sink(parameters.layout(), parameters.degree(), {{out, values, 0.01}},
                              integers, parameters.q_max(), limits, 1);
    decrypt(key, {body.data(), body.size(), seed}, 1, sink);
    CHECK(sink.valid());
    CHECK(integers ? is_secret(whole) : is_secret(reals));
  }
}

}  // namespace

TEST(packed_encryption_and_decryption) {
  for (const ParametersPtr& parameters : packed_shapes()) {
    const SecretKey key = SecretKey::generate(parameters);
    const PublicKey public_key = PublicKey::generate(key);
    const std::size_t values = parameters->values_per_ciphertext() - 3;
    const std::vector<float> reals = secret_reals<float>(values);
    std::vector<std::uint16_t> fields(values);
    for (std::uint16_t& field : fields) field = static_cast<std::uint16_t>(rng() % 3);
    mark_secret(fields);
    const InputSegment of_fields = {ElementType::field16, fields.data(), values, 1.0};
    const InputSegment of_reals = {ElementType::float32, reals.data(), values, 1.0};
    const SecretSeed dither;
    for (const PublicKey* with : {static_cast<const PublicKey*>(nullptr), &public_key}) {
      const auto integers = [&] { encrypt_and_decrypt(key, with, of_fields, std::nullopt); };
      const auto nearest = [&] { encrypt_and_decrypt(key, with, of_reals, std::nullopt); };
      const auto stochastic = [&] { encrypt_and_decrypt(key, with, of_reals, dither.get()); };
      CHECK(!leaks(integers));
      CHECK(!kKnowsConversions || !leaks(nearest));
      CHECK(!kKnowsConversions || !leaks(stochastic));
    }
  }
}

TEST(a_key_that_is_damaged_is_refused) {
  const ParametersPtr parameters = packed_shapes()[0];
  std::vector<std::uint8_t> code = secret_code(SecretKey::generate(parameters));
  code[7] = 0xFF;
  mark_secret(code);
  const auto load = [&] {
    CHECK_ERROR(ErrorCode::wire_format, SecretKey::load(parameters, code.data(), code.size()));
  };
  CHECK(!leaks(load));
}

namespace {

/// Three parties; smudging of 34 bits, for speed.
ParametersPtr threshold_shape() {
  ParameterLiteral literal = packed(4096, {26, 40, 20}, 1, 2);
  literal.noise_bound = 1 + 3 * 4096;
  literal.parties = 3;
  literal.smudging_bits = 34;
  literal.smudging_primes = 1;
  return std::make_shared<const Parameters>(literal);
}

PublicKey joint_key(const ParametersPtr& parameters, const std::vector<Party>& parties) {
  std::vector<std::vector<std::uint8_t>> shares;
  std::vector<ByteView> views;
  for (const Party& party : parties) shares.push_back(party.public_share(Seed{1}));
  for (const auto& share : shares) {
    CHECK(!is_secret(share));
    views.push_back({share.data(), share.size()});
  }
  return combine_public_shares(parameters, Seed{1}, views);
}

/// One ciphertext of `fields` under the joint key.
std::vector<std::uint8_t> encrypt_jointly(const PublicKey& key,
                                          const std::vector<std::uint16_t>& fields) {
  const Parameters& parameters = *key.parameters();
  QuantizePackSource packed_fields(parameters.layout(), parameters.degree(),
                                   {{ElementType::field16, fields.data(), fields.size(), 1.0}},
                                   parameters.q_max(), std::nullopt, 1);
  RescaleSource source(parameters.ring(), parameters.data_primes(),
                       parameters.literal().smudging_primes, packed_fields);
  const SecretSeed noise;
  std::vector<std::uint8_t> body(body_bytes(parameters, 1, false));
  encrypt_public(key, source, 1, noise.get(), body.data());
  return body;
}

/// What participant `point` of parties 1 and 3 answers; its state is stored and read on the way.
std::vector<std::uint8_t> answer(const Party& party, std::size_t point,
                                 const std::vector<std::uint8_t>& body) {
  const ParametersPtr& parameters = party.parameters();
  const SecureBuffer<std::uint8_t> state = party.save();
  CHECK(is_secret(state.data(), state.size()));
  const Party again = Party::load(parameters, point, 2, state.data(), state.size());
  SecureBuffer<PairMask> masks(1);
  masks[0] = {Seed{2}, point == 3};
  QUANCRYPT_SECRET(masks[0].seed.data(), sizeof(Seed));
  std::vector<std::uint8_t> part(parameters->polynomial_bytes());
  again.partial_decryption({body.data(), body.size(), std::nullopt}, 1, {1, 3}, masks, Seed{3},
                           part.data());
  CHECK(!is_secret(part));
  return part;
}

}  // namespace

TEST(a_threshold_key_from_the_shares_to_a_sum) {
  const ParametersPtr parameters = threshold_shape();
  std::vector<std::uint16_t> fields(parameters->values_per_ciphertext());
  for (std::uint16_t& field : fields) field = static_cast<std::uint16_t>(rng() % 3);
  const std::vector<std::uint16_t> expected = fields;
  mark_secret(fields);
  const auto live = [&] {
    std::vector<Party> parties;
    for (std::size_t point = 1; point <= 3; ++point) parties.emplace_back(parameters, point, 2);
    std::vector<std::uint8_t> deal(parameters->polynomial_bytes());
    for (std::size_t from = 1; from <= 3; ++from) {
      for (std::size_t to = 1; to <= 3; ++to) {
        if (from == to) continue;
        parties[from - 1].deal(to, deal.data());
        CHECK(is_secret(deal));
        parties[to - 1].receive(deal.data(), deal.size());
      }
    }
    const std::vector<std::uint8_t> body = encrypt_jointly(joint_key(parameters, parties), fields);
    const std::vector<std::uint8_t> first = answer(parties[0], 1, body);
    const std::vector<std::uint8_t> third = answer(parties[2], 3, body);
    std::vector<std::int64_t> sum(fields.size());
    const auto q_max = static_cast<std::uint64_t>(parameters->q_max());
    const simd::SumLimits limits = {2 * q_max, parameters->noise_of_sum(1)};
    UnpackDequantizeSink fields_of(parameters->layout(), parameters->degree(),
                                   {{sum.data(), sum.size(), 1.0}}, true, parameters->q_max(),
                                   limits, 1);
    RescaleSink sink(parameters->ring(), parameters->data_primes(),
                     parameters->literal().smudging_primes, fields_of);
    combine_parts(*parameters, {body.data(), body.size(), std::nullopt}, 1,
                  {{first.data(), first.size()}, {third.data(), third.size()}}, sink);
    CHECK(fields_of.valid());
    CHECK(is_secret(sum));
    mark_public(sum);
    for (std::size_t v = 0; v < sum.size(); ++v) {
      CHECK(sum[v] == std::int64_t{expected[v]} - parameters->q_max());
    }
  };
  CHECK(!leaks(live));
}

TEST(parties_share_and_decrypt) {
  const ParametersPtr parameters = threshold_shape();
  const auto meet = [&] {
    Party one(parameters, 1, 2);
    const Party two(parameters, 2, 2);
    CHECK(!is_secret(one.public_share(Seed{1})));
    std::vector<std::uint8_t> deal(parameters->polynomial_bytes());
    two.deal(1, deal.data());
    CHECK(is_secret(deal));
    one.receive(deal.data(), deal.size());
    const SecureBuffer<std::uint8_t> state = one.save();
    CHECK(is_secret(state.data(), state.size()));
    const Party again = Party::load(parameters, 1, 2, state.data(), state.size());
    const std::vector<std::uint8_t> body(body_bytes(*parameters, 1, false), 1);
    std::vector<std::uint8_t> part(parameters->polynomial_bytes());
    SecureBuffer<PairMask> masks(1);
    masks[0] = {Seed{2}, true};
    QUANCRYPT_SECRET(masks[0].seed.data(), sizeof(Seed));
    Seed request{3};
    QUANCRYPT_SECRET(request.data(), sizeof(Seed));
    again.partial_decryption({body.data(), body.size(), std::nullopt}, 1, {1, 2}, masks, request,
                             part.data());
    CHECK(!is_secret(part));
  };
  CHECK(!leaks(meet));
}

TEST(smudging_and_division) {
  const RnsRing ring(1024, find_primes(1024, 45, 3, {}));
  for (const unsigned bits : {20U, 90U}) {
    std::vector<std::uint64_t> x(1024);
    const auto sample = [&] {
      Smudging smudging(ring, bits);
      const SecretSeed seed;
      Prng prng(seed.get(), {0, 0});
      smudging.sample(prng);
      smudging.residues(1, x.data());
      CHECK(is_secret(x));
    };
    CHECK(!leaks(sample));
  }
  class Sink final : public PlaintextSink {
   public:
    [[nodiscard]] std::size_t workers() const override { return 1; }
    void take(std::size_t, std::size_t, std::uint64_t* residues) override {
      secret = is_secret(residues, 1024 * sizeof(std::uint64_t));
    }
    bool secret = false;
  } inner;
  std::vector<std::uint64_t> residues;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::vector<std::uint64_t> row = secret_residues(1024, ring.modulus(i).p);
    residues.insert(residues.end(), row.begin(), row.end());
  }
  RescaleSink sink(ring, 3, 2, inner);
  const auto divide = [&] {
    sink.take(0, 0, residues.data());
    CHECK(inner.secret);
  };
  CHECK(!leaks(divide));
}

TEST(slot_encryption_and_decryption) {
  for (const ParametersPtr& parameters : slot_shapes()) {
    const SecretKey key = SecretKey::generate(parameters);
    const PublicKey public_key = PublicKey::generate(key);
    const std::size_t values = parameters->values_per_ciphertext() - 3;
    const std::vector<double> reals = secret_reals<double>(values);
    const auto encrypt_and_decrypt_slots = [&] {
      for (const bool seeded : {false, true}) {
        SlotSource source(parameters->slot_layout(), reals.data(), values, 1);
        const SecretSeed noise;
        std::optional<Seed> seed;
        std::vector<std::uint8_t> body(body_bytes(*parameters, 1, seeded));
        if (seeded) {
          seed = fresh_seed();
          encrypt_symmetric(key, source, 1, *seed, noise.get(), body.data());
        } else {
          encrypt_public(public_key, source, 1, noise.get(), body.data());
        }
        CHECK(!is_secret(body));
        std::vector<float> out(values);
        SlotSink sink(parameters->slot_layout(), out.data(), values, 1.0, 1);
        decrypt(key, {body.data(), body.size(), seed}, 1, sink);
        CHECK(is_secret(out));
      }
    };
    CHECK(!leaks(encrypt_and_decrypt_slots));
  }
}

int main() {
  if (!checker_runs()) {
    std::printf("run this test under valgrind, which reports what depends on secrets\n");
    return 1;
  }
  set_num_threads(1);
  return testing::run_all();
}
