#include <algorithm>
#include <limits>

#include "base/thread_pool.h"
#include "bindings/bound.h"
#include "bindings/frame.h"
#include "bindings/sums.h"
#include "packing/quantize_pack.h"
#include "packing/rescale.h"
#include "rlwe/decryptor.h"
#include "rlwe/encryptor.h"
#include "simd/dispatch.h"

namespace quancrypt::bindings {
namespace {

InputSegment to_segment(const py::array& array, double clip) {
  if ((array.flags() & py::array::c_style) == 0) {
    throw Error(ErrorCode::parameter, "a segment is not contiguous");
  }
  InputSegment segment{ElementType::float32, array.data(), static_cast<std::size_t>(array.size()),
                       clip};
  if (array.dtype().is(py::dtype::of<float>())) return segment;
  segment.type = ElementType::float64;
  if (array.dtype().is(py::dtype::of<double>())) return segment;
  segment.type = ElementType::field16;
  if (array.dtype().is(py::dtype::of<std::uint16_t>())) return segment;
  throw Error(ErrorCode::parameter, "a segment is not float32, float64 or uint16");
}

std::vector<InputSegment> to_segments(const std::vector<std::pair<py::array, double>>& arrays) {
  std::vector<InputSegment> segments;
  for (const auto& [array, clip] : arrays) segments.push_back(to_segment(array, clip));
  return segments;
}

/// Encrypts with either key into a frame after `prefix`; `public_seed` for a secret key only.
Frame encrypt(const SecretKey* secret, const PublicKey* public_key,
              const std::optional<std::string>& public_seed, PlaintextSource& source,
              std::size_t values, const py::bytes& prefix) {
  const Parameters& parameters =
      secret != nullptr ? *secret->parameters() : *public_key->parameters();
  if ((secret != nullptr) != public_seed.has_value()) {
    throw Error(ErrorCode::parameter, "a seed belongs to a secret key");
  }
  const std::size_t ciphertexts = parameters.ciphertext_count(values);
  Frame frame(prefix, body_bytes(parameters, ciphertexts, secret != nullptr));
  const SecretSeed noise_seed;
  const Seed seed = public_seed ? to_seed(*public_seed) : Seed{};
  const py::gil_scoped_release release;
  frame.seal(
      parameters.polynomial_checksums(),
      secret != nullptr
          ? encrypt_symmetric(*secret, source, ciphertexts, seed, noise_seed.get(), frame.body())
          : encrypt_public(*public_key, source, ciphertexts, noise_seed.get(), frame.body()));
  return frame;
}

/// The frame, or the number of the first NaN or infinity.
py::object encrypt_packed(const BoundParameters& p, const SecretKey* secret,
                          const PublicKey* public_key,
                          const std::optional<std::string>& public_seed,
                          const std::vector<std::pair<py::array, double>>& arrays,
                          const std::optional<std::string>& dither_seed, const py::bytes& prefix) {
  std::optional<Seed> dither;
  if (dither_seed) dither = to_seed(*dither_seed);
  QuantizePackSource source(p.core->layout(), p.core->degree(), to_segments(arrays),
                            p.core->q_max(), dither, num_threads());
  const std::uint32_t divided = p.core->literal().smudging_primes;
  RescaleSource scaled(p.core->ring(), p.core->data_primes(), divided, source);
  PlaintextSource& plaintexts = divided > 0 ? static_cast<PlaintextSource&>(scaled) : source;
  Frame frame = encrypt(secret, public_key, public_seed, plaintexts, source.value_count(), prefix);
  if (source.first_bad() != source.value_count()) return py::int_(source.first_bad());
  return std::move(frame).bytes();
}

/// The fields that encrypt_packed packs, or the number of the first NaN or infinity.
py::object quantize_packed(const BoundParameters& p,
                           const std::vector<std::pair<py::array, double>>& arrays,
                           const std::optional<std::string>& dither_seed) {
  std::optional<Seed> dither;
  if (dither_seed) dither = to_seed(*dither_seed);
  const std::size_t values = p.core->layout().values();
  QuantizePackSource source(p.core->layout(), p.core->degree(), to_segments(arrays),
                            p.core->q_max(), dither, 1);
  py::array_t<std::uint16_t> out(static_cast<py::ssize_t>(source.value_count()));
  for (std::size_t begin = 0; begin < source.value_count(); begin += values) {
    const std::uint16_t* fields = source.quantize(begin / values, 0);
    std::copy_n(fields, std::min(values, source.value_count() - begin), out.mutable_data() + begin);
  }
  if (source.first_bad() != source.value_count()) return py::int_(source.first_bad());
  return out;
}

py::bytes encrypt_slots(const BoundParameters& p, const SecretKey* secret,
                        const PublicKey* public_key, const std::optional<std::string>& public_seed,
                        const py::array_t<double, py::array::c_style>& values,
                        const py::bytes& prefix) {
  const auto count = static_cast<std::size_t>(values.size());
  SlotSource source(p.core->slot_layout(), values.data(), count, num_threads());
  return encrypt(secret, public_key, public_seed, source, count, prefix).bytes();
}

/// One array for each count: float32, or int64 with `integers`.
py::list decrypt_packed(const BoundParameters& p, const SecretKey& key, const ByteArray& body,
                        const std::optional<std::string>& seed, std::uint64_t weight,
                        const std::vector<std::size_t>& counts, const std::vector<double>& factors,
                        bool integers) {
  const BodyView view = body_view(body, seed);
  return unpack_sum(
      *p.core, weight, counts, factors, integers,
      [&](std::size_t ciphertexts, PlaintextSink& sink) { decrypt(key, view, ciphertexts, sink); });
}

py::array_t<float> decrypt_slots(const BoundParameters& p, const SecretKey& key,
                                 const ByteArray& body, const std::optional<std::string>& seed,
                                 std::size_t count, double factor) {
  py::array_t<float> values(static_cast<py::ssize_t>(count));
  SlotSink sink(p.core->slot_layout(), values.mutable_data(), count, factor, num_threads());
  const BodyView view = body_view(body, seed);
  const py::gil_scoped_release release;
  decrypt(key, view, p.core->ciphertext_count(count), sink);
  return values;
}

/// Offset-binary fields in [0, 2 q_max] and the number of the first NaN or infinity or -1.
py::tuple quantize(const py::array& values, double clip, std::int32_t q_max) {
  const InputSegment segment = to_segment(values, clip);
  py::array_t<std::uint16_t> out(static_cast<py::ssize_t>(segment.count));
  const std::size_t good =
      quantize_segment(segment, 0, segment.count, q_max, nullptr, out.mutable_data());
  if (good == segment.count) return py::make_tuple(out, -1);
  return py::make_tuple(out, good);
}

}  // namespace

void bind_encryption(py::module_& m) {
  m.def("encrypt_packed", &encrypt_packed, py::arg("parameters"), py::arg("secret").none(true),
        py::arg("public_key").none(true), py::arg("public_seed").none(true), py::arg("segments"),
        py::arg("dither_seed").none(true), py::arg("prefix"));
  m.def("quantize_packed", &quantize_packed, py::arg("parameters"), py::arg("segments"),
        py::arg("dither_seed").none(true));
  m.def("encrypt_slots", &encrypt_slots, py::arg("parameters"), py::arg("secret").none(true),
        py::arg("public_key").none(true), py::arg("public_seed").none(true), py::arg("values"),
        py::arg("prefix"));
  m.def("decrypt_packed", &decrypt_packed, py::arg("parameters"), py::arg("secret"),
        py::arg("body"), py::arg("seed").none(true), py::arg("weight"), py::arg("counts"),
        py::arg("factors"), py::arg("integers"));
  m.def("decrypt_slots", &decrypt_slots, py::arg("parameters"), py::arg("secret"), py::arg("body"),
        py::arg("seed").none(true), py::arg("count"), py::arg("factor"));
  m.def("quantize", &quantize, py::arg("values"), py::arg("clip"), py::arg("q_max"));
}

}  // namespace quancrypt::bindings
