#include "bench/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"
#include "rlwe/security.h"
#include "simd/arith.h"

namespace quancrypt::bench {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kRandomBytes = 6;  // a coefficient, as the centred binomial sampler reads

/// splitmix64 (Steele, Lea, Flood 2014): operands, nothing secret.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  /// In [-1, 1).
  double real() { return static_cast<double>(next() >> 11) * 0x1p-52 - 1.0; }

 private:
  std::uint64_t state_;
};

/// `size` elements that start `offset` bytes after a multiple of 64.
template <class T>
class Buffer {
 public:
  Buffer(std::size_t size, std::size_t offset) : size_(size) {
    const std::size_t shift = offset / sizeof(T) * sizeof(T);
    const std::size_t bytes = (shift + size * sizeof(T) + kLine - 1) / kLine * kLine;
    memory_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(kLine, std::max(bytes, kLine))));
    if (memory_ == nullptr) throw std::bad_alloc();
    std::memset(memory_.get(), 0, std::max(bytes, kLine));
    data_ = reinterpret_cast<T*>(memory_.get() + shift);
  }
  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  struct Free {
    void operator()(std::uint8_t* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<std::uint8_t, Free> memory_;
  T* data_;
  std::size_t size_;
};

std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
  return Generator(hash ^ word).next() + (hash << 1);
}

template <class T>
std::uint64_t mix(std::uint64_t hash, Buffer<T>& buffer) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(buffer.data());
  const std::size_t size = buffer.size() * sizeof(T);
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + at, std::min(size - at, sizeof(word)));
    hash = mix(hash, word);
  }
  return hash;
}

/// The encoding whose tables a kernel needs.
enum class Encoded { any, packed, slots };

}  // namespace

struct KernelBench::Operands {
  std::size_t n;
  std::size_t primes;  // of the data
  std::size_t fields;  // per coefficient; 0 without packed encoding
  const simd::NttTable& ntt;
  const Modulus& modulus;
  const simd::PackTable* pack = nullptr;
  const simd::SlotTable* slots = nullptr;
  simd::SumLimits limits{};
  std::int32_t q_max = 127;
  std::uint64_t weight;
  std::uint64_t weight_shoup;

  Buffer<std::uint64_t> x, y, z;  // [n], in [0, p)
  Buffer<std::int8_t> small;      // [n], in [-21, 21]
  Buffer<std::uint8_t> random;    // [6 n]
  Buffer<std::uint8_t> bits;      // [n * bits / 8]
  Buffer<float> f32;              // [n], in [-1, 1)
  Buffer<std::uint32_t> dither;   // [n]
  Buffer<double> f64;             // [n]
  Buffer<double> rows;            // [n / 2]
  Buffer<double> coefficients;    // [n], below 2^40
  Buffer<std::int64_t> integers;  // [n], any
  Buffer<std::uint16_t> quantized;
  Buffer<std::uint16_t> narrow;    // [fields n], in [0, 2 q_max]
  Buffer<std::uint32_t> wide;      // [max(fields, 1) n], in [0, 2 q_max]
  Buffer<std::uint64_t> residues;  // [primes n]: `narrow`, packed
  Buffer<float> values;            // [n]
  std::uint64_t returned = 0;

  Operands(const Parameters& p, std::size_t prime, std::size_t offset)
      : n(p.degree()),
        primes(p.data_primes()),
        fields(p.literal().encoding == Encoding::packed ? p.literal().fields : 0),
        ntt(p.ring().ntt(prime)),
        modulus(p.ring().modulus(prime)),
        weight(p.literal().max_weight % modulus.p),
        weight_shoup(simd::shoup(weight, modulus)),
        x(n, offset),
        y(n, offset),
        z(n, offset),
        small(n, offset),
        random(kRandomBytes * n, offset),
        bits(n / 8 * modulus.bits, offset),
        f32(n, offset),
        dither(n, offset),
        f64(n, offset),
        rows(n / 2, offset),
        coefficients(n, offset),
        integers(n, offset),
        quantized(n, offset),
        narrow(fields * n, offset),
        wide(std::max<std::size_t>(fields, 1) * n, offset),
        residues(fields == 0 ? 0 : primes * n, offset),
        values(n, offset) {
    if (fields == 0) {
      slots = &p.slot_layout().table();
      return;
    }
    pack = &p.layout().table();
    q_max = p.q_max();
    limits = {2 * static_cast<std::uint64_t>(q_max), p.literal().noise_bound};
  }

  void fill(std::uint64_t seed) {
    Generator generator(seed);
    for (auto* buffer : {&x, &y, &z}) {
      for (std::size_t i = 0; i < n; ++i) (*buffer)[i] = generator.below(modulus.p);
    }
    const std::uint64_t levels = 2 * static_cast<std::uint64_t>(q_max) + 1;
    for (std::size_t i = 0; i < n; ++i) {
      small[i] = static_cast<std::int8_t>(static_cast<int>(generator.below(2 * kMaxError + 1)) -
                                          kMaxError);
      f64[i] = generator.real();
      f32[i] = static_cast<float>(f64[i]);
      dither[i] = static_cast<std::uint32_t>(generator.next());
      coefficients[i] = generator.real() * 0x1p40;
      integers[i] = static_cast<std::int64_t>(generator.next());
    }
    for (std::size_t i = 0; i < random.size(); ++i) {
      random[i] = static_cast<std::uint8_t>(generator.next());
    }
    for (std::size_t i = 0; i < bits.size(); ++i) {
      bits[i] = static_cast<std::uint8_t>(generator.next());
    }
    for (std::size_t i = 0; i < wide.size(); ++i) {
      wide[i] = static_cast<std::uint32_t>(generator.below(levels));
      if (i < narrow.size()) narrow[i] = static_cast<std::uint16_t>(wide[i]);
    }
    if (fields > 0) {
      simd::portable_kernels()->pack_fields(narrow.data(), n, *pack, residues.data());
    }
  }

  std::uint64_t digest() {
    std::uint64_t hash = mix(0, returned);
    for (auto* buffer : {&x, &y, &z, &residues}) hash = mix(hash, *buffer);
    for (auto* buffer : {&dither, &wide}) hash = mix(hash, *buffer);
    for (auto* buffer : {&random, &bits}) hash = mix(hash, *buffer);
    for (auto* buffer : {&quantized, &narrow}) hash = mix(hash, *buffer);
    for (auto* buffer : {&f64, &rows, &coefficients}) hash = mix(hash, *buffer);
    return mix(mix(mix(mix(hash, small), f32), integers), values);
  }
};

struct KernelBench::Entry {
  const char* name;
  Encoded needs;
  void (*run)(const simd::KernelTable& set, Operands& o);
  Work (*work)(const Operands& o);
};

const std::vector<KernelBench::Entry>& KernelBench::entries() {
  using Set = simd::KernelTable;
  using O = Operands;
  // A new kernel of the table needs one entry here.
  static const std::vector<Entry> all = {
      {"memcpy", Encoded::any,
       [](const Set&, O& o) { std::memcpy(o.z.data(), o.x.data(), 8 * o.n); },
       [](const O& o) { return Work{o.n, 16 * o.n, 0, 0}; }},
      {"ntt_forward", Encoded::any, [](const Set& s, O& o) { s.ntt_forward(o.x.data(), o.ntt); },
       [](const O& o) { return Work{o.n, 16 * o.n, 0, o.n / 2 * o.ntt.log_n}; }},
      {"ntt_inverse", Encoded::any, [](const Set& s, O& o) { s.ntt_inverse(o.x.data(), o.ntt); },
       [](const O& o) { return Work{o.n, 16 * o.n, 0, o.n / 2 * (o.ntt.log_n + 1)}; }},
      {"multiply_add", Encoded::any,
       [](const Set& s, O& o) {
         s.multiply_add(o.z.data(), o.x.data(), o.y.data(), o.z.data(), o.n, o.modulus);
       },
       [](const O& o) { return Work{o.n, 32 * o.n, 0, o.n}; }},
      {"multiply_subtract", Encoded::any,
       [](const Set& s, O& o) {
         s.multiply_subtract(o.z.data(), o.x.data(), o.y.data(), o.z.data(), o.n, o.modulus);
       },
       [](const O& o) { return Work{o.n, 32 * o.n, 0, o.n}; }},
      {"add", Encoded::any,
       [](const Set& s, O& o) { s.add(o.z.data(), o.x.data(), o.n, o.modulus); },
       [](const O& o) { return Work{o.n, 24 * o.n, 0, 0}; }},
      {"scale_add", Encoded::any,
       [](const Set& s, O& o) {
         s.scale_add(o.z.data(), o.x.data(), o.weight, o.weight_shoup, o.n, o.modulus);
       },
       [](const O& o) { return Work{o.n, 24 * o.n, 0, o.n}; }},
      {"subtract_scale", Encoded::any,
       [](const Set& s, O& o) {
         s.subtract_scale(o.z.data(), o.x.data(), o.weight, o.weight_shoup, o.n, o.modulus);
       },
       [](const O& o) { return Work{o.n, 24 * o.n, 0, o.n}; }},
      {"remainder", Encoded::any,
       [](const Set& s, O& o) {
         s.remainder(o.z.data(), o.integers.data(), o.weight, o.n, o.modulus);
       },
       [](const O& o) { return Work{o.n, 16 * o.n, 0, o.n}; }},
      {"lift_small", Encoded::any,
       [](const Set& s, O& o) { s.lift_small(o.z.data(), o.small.data(), o.n, o.modulus); },
       [](const O& o) { return Work{o.n, 9 * o.n, 0, 0}; }},
      {"subtract_small", Encoded::any,
       [](const Set& s, O& o) { s.subtract_small(o.z.data(), o.small.data(), o.n, o.modulus); },
       [](const O& o) { return Work{o.n, 17 * o.n, 0, 0}; }},
      {"chacha20", Encoded::any,
       [](const Set& s, O& o) {
         s.chacha20(reinterpret_cast<const std::uint8_t*>(o.x.data()),
                    reinterpret_cast<const std::uint8_t*>(o.y.data()), 1, o.random.data(),
                    o.random.size() / simd::kChaChaBlock);
       },
       [](const O& o) {
         return Work{kRandomBytes * o.n, kRandomBytes * o.n, kRandomBytes * o.n, 0};
       }},
      {"sample_centred_binomial", Encoded::any,
       [](const Set& s, O& o) { s.sample_centred_binomial(o.random.data(), o.small.data(), o.n); },
       [](const O& o) { return Work{o.n, 7 * o.n, 6 * o.n, 0}; }},
      {"sample_ternary", Encoded::any,
       [](const Set& s, O& o) {
         o.returned = s.sample_ternary(o.random.data(), o.small.data(), o.n);
       },
       [](const O& o) { return Work{o.n, 5 * o.n, 4 * o.n, 0}; }},
      {"quantize_f32", Encoded::any,
       [](const Set& s, O& o) {
         o.returned = s.quantize_f32(o.f32.data(), o.n, 0.75F, static_cast<float>(o.q_max) / 0.75F,
                                     o.q_max, nullptr, o.quantized.data());
       },
       [](const O& o) { return Work{o.n, 6 * o.n, 0, 0}; }},
      {"quantize_f32_stochastic", Encoded::any,
       [](const Set& s, O& o) {
         o.returned = s.quantize_f32(o.f32.data(), o.n, 0.75F, static_cast<float>(o.q_max) / 0.75F,
                                     o.q_max, o.dither.data(), o.quantized.data());
       },
       [](const O& o) { return Work{o.n, 10 * o.n, 4 * o.n, 0}; }},
      {"quantize_f64", Encoded::any,
       [](const Set& s, O& o) {
         o.returned = s.quantize_f64(o.f64.data(), o.n, 0.75, o.q_max / 0.75, o.q_max, nullptr,
                                     o.quantized.data());
       },
       [](const O& o) { return Work{o.n, 10 * o.n, 0, 0}; }},
      {"pack_fields", Encoded::packed,
       [](const Set& s, O& o) { s.pack_fields(o.narrow.data(), o.n, *o.pack, o.residues.data()); },
       [](const O& o) {
         return Work{o.fields * o.n, (2 * o.fields + 8 * o.primes) * o.n, 0,
                     o.pack->limbs * o.primes * o.n};
       }},
      {"unpack_fields", Encoded::packed,
       [](const Set& s, O& o) {
         o.returned = s.unpack_fields(o.residues.data(), o.n, *o.pack, o.limits, o.wide.data());
       },
       [](const O& o) {
         return Work{o.fields * o.n, (4 * o.fields + 8 * o.primes) * o.n, 0,
                     o.primes * (o.primes - 1) / 2 * o.n};
       }},
      {"dequantize", Encoded::any,
       [](const Set& s, O& o) {
         s.dequantize(o.wide.data(), o.n, o.q_max, 0.75 / o.q_max, o.values.data());
       },
       [](const O& o) { return Work{o.n, 8 * o.n, 0, 0}; }},
      {"slots_to_coefficients", Encoded::slots,
       [](const Set& s, O& o) {
         s.slots_to_coefficients(o.f64.data(), *o.slots, 0x1p40, o.coefficients.data());
       },
       [](const O& o) { return Work{o.n / 2, 12 * o.n, 0, 0}; }},
      // The kernel overwrites its input: what is timed begins with a copy of it.
      {"coefficients_to_slots", Encoded::slots,
       [](const Set& s, O& o) {
         std::memcpy(o.coefficients.data(), o.f64.data(), o.n * sizeof(double));
         s.coefficients_to_slots(o.coefficients.data(), *o.slots, o.rows.data());
       },
       [](const O& o) { return Work{o.n / 2, 28 * o.n, 0, 0}; }},
      {"round_to_integers", Encoded::any,
       [](const Set& s, O& o) {
         o.returned = s.round_to_integers(o.coefficients.data(), o.n, o.integers.data());
       },
       [](const O& o) { return Work{o.n, 16 * o.n, 0, 0}; }},
      {"pack_bits", Encoded::any,
       [](const Set& s, O& o) { s.pack_bits(o.x.data(), o.n, o.modulus.bits, o.bits.data()); },
       [](const O& o) { return Work{o.n, 8 * o.n + o.bits.size(), 0, 0}; }},
      {"unpack_bits", Encoded::any,
       [](const Set& s, O& o) { s.unpack_bits(o.bits.data(), o.n, o.modulus.bits, o.z.data()); },
       [](const O& o) { return Work{o.n, 8 * o.n + o.bits.size(), 0, 0}; }},
      {"add_bits", Encoded::any,
       [](const Set& s, O& o) {
         o.returned = s.add_bits(o.bits.data(), o.n, false, o.z.data(), o.modulus) ? 1 : 0;
       },
       [](const O& o) { return Work{o.n, 16 * o.n + o.bits.size(), 0, 0}; }},
      {"find_not_below", Encoded::any,
       [](const Set& s, O& o) { o.returned = s.find_not_below(o.y.data(), o.n, o.modulus.p); },
       [](const O& o) { return Work{o.n, 8 * o.n, 0, 0}; }},
      {"crc32c", Encoded::any,
       [](const Set& s, O& o) { o.returned = s.crc32c(0, o.random.data(), o.random.size()); },
       [](const O& o) { return Work{o.random.size(), o.random.size(), 0, 0}; }},
  };
  return all;
}

KernelBench::KernelBench(ParametersPtr parameters, const simd::KernelTable& set, std::size_t prime,
                         std::size_t offset, std::uint64_t seed)
    : parameters_(std::move(parameters)), set_(set), prime_(prime), offset_(offset), seed_(seed) {
  if (prime >= parameters_->ring().prime_count()) {
    throw Error(ErrorCode::parameter, "prime is " + std::to_string(prime) + "; allowed: 0 to " +
                                          std::to_string(parameters_->ring().prime_count() - 1));
  }
  if (offset >= kLine) {
    throw Error(ErrorCode::parameter, "offset is " + std::to_string(offset) + "; allowed: 0 to 63");
  }
  operands_ = prepare();
}

KernelBench::~KernelBench() = default;

std::unique_ptr<KernelBench::Operands> KernelBench::prepare() const {
  auto operands = std::make_unique<Operands>(*parameters_, prime_, offset_);
  operands->fill(seed_);
  return operands;
}

bool KernelBench::has_tables(const Entry& entry) const {
  if (entry.needs == Encoded::packed) return operands_->pack != nullptr;
  return entry.needs == Encoded::any || operands_->slots != nullptr;
}

std::vector<std::string> KernelBench::kernels() const {
  std::vector<std::string> names;
  for (const Entry& e : entries()) {
    if (has_tables(e)) names.emplace_back(e.name);
  }
  return names;
}

const KernelBench::Entry& KernelBench::entry(const std::string& kernel) const {
  std::string choices;
  for (const Entry& e : entries()) {
    if (!has_tables(e)) continue;
    if (kernel == e.name) return e;
    choices += choices.empty() ? "" : ", ";
    choices += e.name;
  }
  throw Error(ErrorCode::parameter, "kernel is '" + kernel + "'; allowed: " + choices);
}

double KernelBench::run(const std::string& kernel, std::size_t repeat) {
  const Entry& chosen = entry(kernel);
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < repeat; ++i) chosen.run(set_, *operands_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::uint64_t KernelBench::digest(const std::string& kernel) const {
  const Entry& chosen = entry(kernel);
  const std::unique_ptr<Operands> operands = prepare();
  chosen.run(set_, *operands);
  return operands->digest();
}

Work KernelBench::work(const std::string& kernel) const { return entry(kernel).work(*operands_); }

}  // namespace quancrypt::bench
