#include "bindings/bound.h"
#include "bindings/frame.h"
#include "rlwe/aggregator.h"

namespace quancrypt::bindings {
namespace {

void add(Aggregator& aggregator, const ByteArray& body, const std::optional<std::string>& seed,
         std::uint64_t own_weight, std::uint64_t factor) {
  const BodyView view = body_view(body, seed);
  const py::gil_scoped_release release;
  aggregator.add(view, own_weight, factor);
}

py::bytes result(const Aggregator& aggregator, const py::bytes& prefix) {
  Frame frame(prefix, body_bytes(*aggregator.parameters(), aggregator.ciphertexts(), false));
  {
    const py::gil_scoped_release release;
    frame.seal(aggregator.parameters()->polynomial_checksums(), aggregator.write(frame.body()));
  }
  return std::move(frame).bytes();
}

void check_body(const BoundParameters& p, const ByteArray& body, std::size_t ciphertexts,
                bool seeded) {
  BodyView view{body.data(), static_cast<std::size_t>(body.size()), std::nullopt};
  if (seeded) view.seed = Seed{};
  const py::gil_scoped_release release;
  check_residues(*p.core, view, ciphertexts);
}

}  // namespace

void bind_aggregation(py::module_& m) {
  py::class_<Aggregator>(m, "Aggregator")
      .def(py::init([](const BoundParameters& p, std::size_t ciphertexts) {
             return std::make_unique<Aggregator>(p.core, ciphertexts);
           }),
           py::arg("parameters"), py::arg("ciphertexts"))
      .def("add", &add, py::arg("body"), py::arg("seed").none(true), py::arg("own_weight"),
           py::arg("factor"))
      .def("result", &result, py::arg("prefix"))
      .def_property_readonly("weight", &Aggregator::weight);
  m.def("check_body", &check_body, py::arg("parameters"), py::arg("body"), py::arg("ciphertexts"),
        py::arg("seeded"));
}

}  // namespace quancrypt::bindings
