#include "bindings/bound.h"
#include "bindings/secret_bytes.h"
#include "rlwe/keys.h"

namespace quancrypt::bindings {
namespace {

const std::uint8_t* bytes_of(const std::string_view& data) {
  return reinterpret_cast<const std::uint8_t*>(data.data());
}

}  // namespace

void bind_keys(py::module_& m) {
  py::class_<SecretKey, std::shared_ptr<SecretKey>>(m, "SecretKey")
      .def_static(
          "generate",
          [](const BoundParameters& p) {
            const py::gil_scoped_release release;
            return SecretKey::generate(p.core);
          },
          py::arg("parameters"))
      .def_static(
          "load",
          [](const BoundParameters& p, const py::buffer& data) {
            const HeldBytes bytes(data);
            return SecretKey::load(p.core, bytes.data(), bytes.size());
          },
          py::arg("parameters"), py::arg("data"))
      .def("save", [](const SecretKey& key) { return SecretBytes(key.save()); });

  py::class_<PublicKey, std::shared_ptr<PublicKey>>(m, "PublicKey")
      .def_static(
          "generate",
          [](const SecretKey& secret) {
            const py::gil_scoped_release release;
            return PublicKey::generate(secret);
          },
          py::arg("secret"))
      .def_static(
          "load",
          [](const BoundParameters& p, const std::string& seed, const py::bytes& data) {
            const std::string_view view = data;
            return PublicKey::load(p.core, to_seed(seed), bytes_of(view), view.size());
          },
          py::arg("parameters"), py::arg("seed"), py::arg("data"))
      .def("save",
           [](const PublicKey& key) {
             const std::vector<std::uint8_t> out = key.save();
             return py::bytes(reinterpret_cast<const char*>(out.data()), out.size());
           })
      .def_property_readonly("seed", [](const PublicKey& key) { return to_bytes(key.seed()); });
}

}  // namespace quancrypt::bindings
