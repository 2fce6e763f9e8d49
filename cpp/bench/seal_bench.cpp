#include "bench/seal_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <utility>

#include "base/error.h"
#include "seal/util/ntt.h"
#include "simd/kernels.h"

namespace quancrypt::bench {
namespace {

constexpr std::size_t kRandomBytes = 65536;
constexpr std::int64_t kLargestNoise = 1 << 24;  // of a fresh encryption, with room; p is > 2^40
constexpr double kSlotNoise =
    64;  // a fresh encryption's error in a slot, in degree / scale, with room

struct Operation {
  std::string name;
  std::function<void()> run;
  std::size_t bytes;
};

}  // namespace

struct SealBench::State {
  const Parameters& parameters;
  const ::seal::SEALContext& context;
  double scale;
  ::seal::KeyGenerator keygen;
  ::seal::PublicKey public_key;
  ::seal::Encryptor encryptor;
  ::seal::Decryptor decryptor;
  ::seal::Evaluator evaluator;
  std::unique_ptr<::seal::CKKSEncoder> encoder;  // slots only
  std::vector<double> slots;
  std::vector<std::uint64_t> message;  // packed only: [data primes][degree] coefficients
  std::vector<std::uint64_t> polynomial;
  std::vector<::seal::seal_byte> stream;
  std::vector<::seal::seal_byte> random;
  ::seal::Plaintext plain;
  ::seal::Plaintext decrypted;
  ::seal::Ciphertext ciphertext;
  ::seal::Ciphertext loaded;
  ::seal::Ciphertext sum;
  std::shared_ptr<::seal::UniformRandomGenerator> generator;
  std::vector<Operation> operations;

  explicit State(const seal_bridge::Context& bridge)
      : parameters(bridge.parameters()),
        context(bridge.seal()),
        scale(bridge.scale()),
        keygen(context),
        public_key(make_public_key(keygen)),
        encryptor(context, public_key, keygen.secret_key()),
        decryptor(context, keygen.secret_key()),
        evaluator(context),
        polynomial(parameters.degree()),
        random(kRandomBytes),
        generator(::seal::UniformRandomGeneratorFactory::DefaultFactory()->create()) {
    std::mt19937_64 random_engine(1);
    for (auto& word : polynomial) word = random_engine() % parameters.literal().primes[0];
    if (parameters.literal().encoding == Encoding::slots) {
      encoder = std::make_unique<::seal::CKKSEncoder>(context);
      std::uniform_real_distribution<double> uniform(-1.0, 1.0);
      for (std::size_t i = 0; i < encoder->slot_count(); ++i) {
        slots.push_back(uniform(random_engine));
      }
    } else {
      const auto levels = 2 * static_cast<std::uint64_t>(parameters.q_max()) + 1;
      std::vector<std::uint16_t> fields(parameters.values_per_ciphertext());
      for (auto& field : fields) field = static_cast<std::uint16_t>(random_engine() % levels);
      message.resize(parameters.data_primes() * parameters.degree());
      simd::portable_kernels()->pack_fields(fields.data(), parameters.degree(),
                                            parameters.layout().table(), message.data());
    }
    encode();
    encryptor.encrypt(plain, sum);
    check(sum, "encrypt");
    encryptor.encrypt_symmetric(plain, ciphertext);
    check(ciphertext, "encrypt_symmetric");
    stream.resize(static_cast<std::size_t>(
        encryptor.encrypt_symmetric(plain).save_size(::seal::compr_mode_type::none)));
    stream.resize(save());  // SEAL's size is an upper bound
    load();
    check(loaded, "load");
    add_operations();
  }

  static ::seal::PublicKey make_public_key(::seal::KeyGenerator& keygen) {
    ::seal::PublicKey key;
    keygen.create_public_key(key);
    return key;
  }

  [[nodiscard]] const ::seal::util::NTTTables* tables() const {
    return context.first_context_data()->small_ntt_tables();
  }

  void encode() {
    if (encoder) {
      encoder->encode(slots, scale, plain);
      return;
    }
    plain.parms_id() = ::seal::parms_id_zero;
    plain.resize(message.size());
    std::copy(message.begin(), message.end(), plain.data());
    for (std::size_t i = 0; i < parameters.data_primes(); ++i) {
      ::seal::util::ntt_negacyclic_harvey(
          ::seal::util::CoeffIter(plain.data() + i * parameters.degree()), tables()[i]);
    }
    plain.parms_id() = context.first_parms_id();
    plain.scale() = scale;
  }

  std::size_t save() {
    return static_cast<std::size_t>(encryptor.encrypt_symmetric(plain).save(
        stream.data(), stream.size(), ::seal::compr_mode_type::none));
  }

  void load() { loaded.load(context, stream.data(), stream.size()); }

  /// Leaves slots in `values`, or coefficients in `decrypted`.
  void decode(const ::seal::Ciphertext& encrypted, std::vector<double>& values) {
    decryptor.decrypt(encrypted, decrypted);
    if (encoder) {
      encoder->decode(decrypted, values);
      return;
    }
    for (std::size_t i = 0; i < parameters.data_primes(); ++i) {
      ::seal::util::inverse_ntt_negacyclic_harvey(
          ::seal::util::CoeffIter(decrypted.data() + i * parameters.degree()), tables()[i]);
    }
  }

  void check(const ::seal::Ciphertext& encrypted, const std::string& what) {
    std::vector<double> values;
    decode(encrypted, values);
    bool right = true;
    const double slot_error = kSlotNoise * static_cast<double>(parameters.degree()) / scale;
    for (std::size_t i = 0; i < values.size(); ++i) {
      right = right && std::abs(values[i] - slots[i]) < slot_error;
    }
    for (std::size_t at = 0; at < message.size(); ++at) {
      const std::uint64_t p = parameters.literal().primes[at / parameters.degree()];
      const auto noise = static_cast<std::int64_t>((decrypted.data()[at] + p - message[at]) % p);
      right = right && std::min(noise, static_cast<std::int64_t>(p) - noise) < kLargestNoise;
    }
    if (!right) throw Error(ErrorCode::system, "Microsoft SEAL's " + what + " decrypts wrongly");
  }

  void add_operations() {
    const std::size_t n = parameters.degree();
    const std::size_t expanded = 2 * parameters.data_primes() * n * sizeof(std::uint64_t);
    const auto* first = tables();
    auto add = [this](const char* name, std::size_t bytes, std::function<void()> run) {
      operations.push_back({name, std::move(run), bytes});
    };
    add("encrypt_symmetric", expanded, [this] { encryptor.encrypt_symmetric(plain, ciphertext); });
    add("encrypt_symmetric_save", stream.size(), [this] { save(); });
    add("encode_encrypt_symmetric_save", stream.size(), [this] {
      encode();
      save();
    });
    add("encrypt_public", expanded, [this] { encryptor.encrypt(plain, ciphertext); });
    add("encode_encrypt_public", expanded, [this] {
      encode();
      encryptor.encrypt(plain, ciphertext);
    });
    add("decrypt", expanded, [this] { decryptor.decrypt(ciphertext, decrypted); });
    add("decrypt_decode", expanded,
        [this, values = std::vector<double>()]() mutable { decode(ciphertext, values); });
    add("add", expanded, [this] { evaluator.add_inplace(sum, ciphertext); });
    add("load_add", stream.size(), [this] {
      load();
      evaluator.add_inplace(sum, loaded);
    });
    add("ntt_forward", 2 * n * sizeof(std::uint64_t), [this, first] {
      ::seal::util::ntt_negacyclic_harvey(::seal::util::CoeffIter(polynomial.data()), *first);
    });
    add("ntt_inverse", 2 * n * sizeof(std::uint64_t), [this, first] {
      ::seal::util::inverse_ntt_negacyclic_harvey(::seal::util::CoeffIter(polynomial.data()),
                                                  *first);
    });
    add("random_bytes", random.size(),
        [this] { generator->generate(random.size(), random.data()); });
  }

  [[nodiscard]] const Operation& operation(const std::string& name) const {
    std::string choices;
    for (const Operation& candidate : operations) {
      if (candidate.name == name) return candidate;
      choices += (choices.empty() ? "" : ", ") + candidate.name;
    }
    throw Error(ErrorCode::parameter, "operation is '" + name + "'; allowed: " + choices);
  }
};

SealBench::SealBench(const seal_bridge::Context& context)
    : state_(std::make_unique<State>(context)) {}

SealBench::~SealBench() = default;

std::vector<std::string> SealBench::operations() const {
  std::vector<std::string> names;
  for (const Operation& operation : state_->operations) names.push_back(operation.name);
  return names;
}

double SealBench::run(const std::string& operation, std::size_t repeat) {
  const Operation& chosen = state_->operation(operation);
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < repeat; ++i) chosen.run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::size_t SealBench::bytes(const std::string& operation) const {
  return state_->operation(operation).bytes;
}

}  // namespace quancrypt::bench
