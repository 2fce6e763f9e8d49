#include <algorithm>
#include <utility>
#include <vector>

#include "bindings/bound.h"
#include "bindings/frame.h"
#include "bindings/secret_bytes.h"
#include "bindings/sums.h"
#include "multiparty/combine.h"
#include "multiparty/party.h"

namespace quancrypt::bindings {
namespace {

ByteView view_of(const ByteArray& data) {
  return {data.data(), static_cast<std::size_t>(data.size())};
}

std::vector<ByteView> views_of(const std::vector<ByteArray>& arrays) {
  std::vector<ByteView> views;
  for (const ByteArray& array : arrays) views.push_back(view_of(array));
  return views;
}

py::bytes public_share(const Party& party, const std::string& common) {
  const Seed seed = to_seed(common);
  std::vector<std::uint8_t> out;
  {
    const py::gil_scoped_release release;
    out = party.public_share(seed);
  }
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

SecretBytes deal(const Party& party, std::size_t point) {
  SecureBuffer<std::uint8_t> out(party.parameters()->polynomial_bytes(), MemoryUse::key);
  {
    const py::gil_scoped_release release;
    party.deal(point, out.data());
  }
  return SecretBytes(std::move(out));
}

void receive(Party& party, const ByteArray& data) {
  const ByteView view = view_of(data);
  const py::gil_scoped_release release;
  party.receive(view.data, view.size);
}

/// 32 secret bytes, without a copy of them on the way.
void copy_seed(const py::buffer& object, Seed& out) {
  const HeldBytes seed(object);
  if (seed.size() != out.size()) {
    throw Error(ErrorCode::parameter,
                "a seed has " + std::to_string(seed.size()) + " bytes; expected 32");
  }
  std::copy_n(seed.data(), out.size(), out.data());
}

py::bytes partial_decryption(const Party& party, const ByteArray& body, std::size_t ciphertexts,
                             const std::vector<std::size_t>& points,
                             const std::vector<std::pair<py::buffer, bool>>& masks,
                             const py::buffer& request, const py::bytes& prefix) {
  const BodyView view = body_view(body, std::nullopt);
  SecureBuffer<PairMask> pairs(masks.size());
  for (std::size_t i = 0; i < masks.size(); ++i) {
    copy_seed(masks[i].first, pairs[i].seed);
    pairs[i].negative = masks[i].second;
  }
  SecureBuffer<Seed> seed(1, MemoryUse::key);
  copy_seed(request, seed[0]);
  Frame frame(prefix, ciphertexts * party.parameters()->polynomial_bytes());
  {
    const py::gil_scoped_release release;
    frame.seal(party.parameters()->polynomial_checksums(),
               party.partial_decryption(view, ciphertexts, points, pairs, seed[0], frame.body()));
  }
  return std::move(frame).bytes();
}

PublicKey combine_public_shares(const BoundParameters& p, const std::string& common,
                                const std::vector<ByteArray>& shares) {
  const Seed seed = to_seed(common);
  const std::vector<ByteView> views = views_of(shares);
  const py::gil_scoped_release release;
  return quancrypt::combine_public_shares(p.core, seed, views);
}

/// As decrypt_packed, from partial decryptions in place of a key.
py::list combine_packed(const BoundParameters& p, const ByteArray& body,
                        const std::vector<ByteArray>& parts, std::uint64_t weight,
                        const std::vector<std::size_t>& counts, const std::vector<double>& factors,
                        bool integers) {
  const BodyView view = body_view(body, std::nullopt);
  const std::vector<ByteView> views = views_of(parts);
  return unpack_sum(*p.core, weight, counts, factors, integers,
                    [&](std::size_t ciphertexts, PlaintextSink& sink) {
                      combine_parts(*p.core, view, ciphertexts, views, sink);
                    });
}

}  // namespace

void bind_multiparty(py::module_& m) {
  py::class_<Party>(m, "Party")
      .def(py::init([](const BoundParameters& p, std::size_t point, std::size_t threshold) {
             return std::make_unique<Party>(p.core, point, threshold);
           }),
           py::arg("parameters"), py::arg("point"), py::arg("threshold"))
      .def_static(
          "load",
          [](const BoundParameters& p, std::size_t point, std::size_t threshold,
             const ByteArray& data) {
            const ByteView view = view_of(data);
            return Party::load(p.core, point, threshold, view.data, view.size);
          },
          py::arg("parameters"), py::arg("point"), py::arg("threshold"), py::arg("data"))
      .def("save", [](const Party& party) { return SecretBytes(party.save()); })
      .def("public_share", &public_share, py::arg("common_seed"))
      .def("deal", &deal, py::arg("point"))
      .def("receive", &receive, py::arg("data"))
      .def("partial_decryption", &partial_decryption, py::arg("body"), py::arg("ciphertexts"),
           py::arg("points"), py::arg("masks"), py::arg("request"), py::arg("prefix"));
  m.def("combine_public_shares", &combine_public_shares, py::arg("parameters"),
        py::arg("common_seed"), py::arg("shares"));
  m.def("combine_packed", &combine_packed, py::arg("parameters"), py::arg("body"), py::arg("parts"),
        py::arg("weight"), py::arg("counts"), py::arg("factors"), py::arg("integers"));
}

}  // namespace quancrypt::bindings
