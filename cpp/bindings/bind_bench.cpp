#include "bench/kernel_bench.h"
#include "bench/seal_bench.h"
#include "bindings/bound.h"
#include "simd/dispatch.h"

namespace quancrypt::bindings {
namespace {

using bench::KernelBench;
using bench::SealBench;

std::unique_ptr<KernelBench> make_kernel_bench(const BoundParameters& p, const std::string& set,
                                               std::size_t prime, std::size_t offset,
                                               std::uint64_t seed) {
  return std::make_unique<KernelBench>(p.core, simd::kernels_named(set), prime, offset, seed);
}

py::dict work(const KernelBench& bench, const std::string& kernel) {
  const bench::Work work = bench.work(kernel);
  py::dict out;
  out["elements"] = work.elements;
  out["bytes"] = work.bytes;
  out["random_bytes"] = work.random_bytes;
  out["multiplications"] = work.multiplications;
  return out;
}

}  // namespace

void bind_bench(py::module_& m) {
  const auto release = py::call_guard<py::gil_scoped_release>();
  py::class_<KernelBench>(m, "KernelBench")
      .def(py::init(&make_kernel_bench), py::arg("parameters"), py::arg("kernel_set"),
           py::kw_only(), py::arg("prime") = 0, py::arg("offset") = 0, py::arg("seed") = 1)
      .def("kernels", &KernelBench::kernels)
      .def("run", &KernelBench::run, py::arg("kernel"), py::arg("repeat"), release)
      .def("digest", &KernelBench::digest, py::arg("kernel"), release)
      .def("work", &work, py::arg("kernel"));
  py::class_<SealBench>(m, "SealBench")
      .def(py::init([](const BoundParameters& p) { return std::make_unique<SealBench>(p.seal()); }),
           py::arg("parameters"), py::keep_alive<1, 2>())
      .def("operations", &SealBench::operations)
      .def("run", &SealBench::run, py::arg("operation"), py::arg("repeat"), release)
      .def("bytes", &SealBench::bytes, py::arg("operation"));
}

}  // namespace quancrypt::bindings
