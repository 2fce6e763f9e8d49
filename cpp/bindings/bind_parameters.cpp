#include "bindings/bound.h"

namespace quancrypt::bindings {
namespace {

BoundParameters make(const std::string& encoding, std::size_t degree,
                     std::vector<std::uint64_t> primes, unsigned security, std::uint64_t max_weight,
                     unsigned bits, std::uint32_t fields, std::uint32_t field_bits,
                     std::uint32_t guard_bits, std::uint64_t noise_bound, std::uint32_t parties,
                     std::uint32_t smudging_bits, std::uint32_t smudging_primes,
                     unsigned scale_bits) {
  if (encoding != "packed" && encoding != "slots") {
    throw Error(ErrorCode::parameter, "encoding is '" + encoding + "'; allowed: packed, slots");
  }
  return BoundParameters(ParameterLiteral{
      .encoding = encoding == "packed" ? Encoding::packed : Encoding::slots,
      .degree = degree,
      .primes = std::move(primes),
      .security = security,
      .max_weight = max_weight,
      .bits = bits,
      .fields = fields,
      .field_bits = field_bits,
      .guard_bits = guard_bits,
      .noise_bound = noise_bound,
      .parties = parties,
      .smudging_bits = smudging_bits,
      .smudging_primes = smudging_primes,
      .scale_bits = scale_bits,
  });
}

}  // namespace

void bind_parameters(py::module_& m) {
  py::class_<BoundParameters, std::shared_ptr<BoundParameters>>(m, "Parameters")
      .def(py::init(&make), py::kw_only(), py::arg("encoding"), py::arg("degree"),
           py::arg("primes"), py::arg("security"), py::arg("max_weight"), py::arg("bits") = 0,
           py::arg("fields") = 0, py::arg("field_bits") = 0, py::arg("guard_bits") = 0,
           py::arg("noise_bound") = 0, py::arg("parties") = 0, py::arg("smudging_bits") = 0,
           py::arg("smudging_primes") = 0, py::arg("scale_bits") = 0)
      .def_property_readonly(
          "values_per_ciphertext",
          [](const BoundParameters& p) { return p.core->values_per_ciphertext(); })
      .def_property_readonly("polynomial_bytes",
                             [](const BoundParameters& p) { return p.core->polynomial_bytes(); })
      .def(
          "ciphertext_count",
          [](const BoundParameters& p, std::size_t values) {
            return p.core->ciphertext_count(values);
          },
          py::arg("values"))
      .def("check_with_seal", [](const BoundParameters& p) { static_cast<void>(p.seal()); });
}

}  // namespace quancrypt::bindings
