#include "bindings/bound.h"
#include "seal_bridge/exchange.h"

namespace quancrypt::bindings {

void bind_seal(py::module_& m) {
  m.def("seal_version", [] { return std::string(seal_bridge::version()); });
  m.def(
      "seal_export_parameters",
      [](const BoundParameters& p) { return py::bytes(seal_bridge::export_parameters(p.seal())); },
      py::arg("parameters"));
  m.def(
      "seal_export_secret_key",
      [](const BoundParameters& p, const SecretKey& key) {
        const SecureBuffer<std::uint8_t> out = seal_bridge::export_secret_key(p.seal(), key);
        return py::bytes(reinterpret_cast<const char*>(out.data()), out.size());
      },
      py::arg("parameters"), py::arg("secret"));
  m.def(
      "seal_export_public_key",
      [](const BoundParameters& p, const PublicKey& key) {
        return py::bytes(seal_bridge::export_public_key(p.seal(), key));
      },
      py::arg("parameters"), py::arg("public_key"));
  m.def(
      "seal_export_ciphertexts",
      [](const BoundParameters& p, const ByteArray& body, const std::optional<std::string>& seed,
         std::size_t ciphertexts) {
        py::list out;
        for (const std::string& stream :
             seal_bridge::export_ciphertexts(p.seal(), body_view(body, seed), ciphertexts)) {
          out.append(py::bytes(stream));
        }
        return out;
      },
      py::arg("parameters"), py::arg("body"), py::arg("seed").none(true), py::arg("ciphertexts"));
  m.def(
      "seal_import_ciphertexts",
      [](const BoundParameters& p, const std::vector<py::bytes>& streams) {
        std::vector<std::string_view> views(streams.begin(), streams.end());
        ByteArray body(static_cast<py::ssize_t>(body_bytes(*p.core, views.size(), false)));
        seal_bridge::import_ciphertexts(p.seal(), views, body.mutable_data());
        return body;
      },
      py::arg("parameters"), py::arg("streams"));
}

}  // namespace quancrypt::bindings
