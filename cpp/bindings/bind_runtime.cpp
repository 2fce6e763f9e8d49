#include "base/thread_pool.h"
#include "bindings/bound.h"
#include "ring/primes.h"
#include "rlwe/security.h"
#include "simd/cpu.h"
#include "simd/dispatch.h"

namespace quancrypt::bindings {
namespace {

std::uint32_t crc32c(const py::buffer& data, std::uint32_t crc) {
  const HeldBytes bytes(data);
  const py::gil_scoped_release release;
  return simd::kernels().crc32c(crc, bytes.data(), bytes.size());
}

std::vector<std::string> backends() {
  std::vector<std::string> names;
  for (const simd::KernelTable* table : simd::available_kernels()) names.emplace_back(table->name);
  return names;
}

}  // namespace

void bind_runtime(py::module_& m) {
  m.def("cpu_features", &simd::cpu_features);
  m.def("backend", [] { return std::string(simd::kernels().name); });
  m.def("backends", &backends);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("threads"));
  m.def("crc32c", &crc32c, py::arg("data"), py::arg("crc") = 0);
  m.def("find_primes", &find_primes, py::arg("degree"), py::arg("bits"), py::arg("count"),
        py::arg("exclude") = std::vector<std::uint64_t>{});
  m.def("max_modulus_bits", &max_modulus_bits, py::arg("degree"), py::arg("security"));
  m.attr("MAX_ERROR") = kMaxError;
}

}  // namespace quancrypt::bindings
