#include "base/thread_pool.h"
#include "bindings/bound.h"
#include "ring/primes.h"
#include "rlwe/security.h"
#include "simd/cpu.h"
#include "simd/dispatch.h"
#include "wire/digests.h"

namespace quancrypt::bindings {
namespace {

std::uint32_t crc32c(const py::buffer& data, std::uint32_t crc) {
  const HeldBytes bytes(data);
  const py::gil_scoped_release release;
  return simd::kernels().crc32c(crc, bytes.data(), bytes.size());
}

/// Of every piece of `size` bytes, `step` apart, that lies in `data` from `first` on; None if hashlib
/// does as well.
py::object sha256_each(const ByteArray& data, std::size_t first, std::size_t size,
                       std::size_t step) {
  const auto length = static_cast<std::size_t>(data.size());
  if (size == 0 || step == 0) throw Error(ErrorCode::parameter, "a piece or a step of 0 bytes");
  const std::size_t count =
      first > length || size > length - first ? 0 : (length - first - size) / step + 1;
  if (count == 0) return py::list();  // `first` may be no offset at all
  std::vector<Digest> digests;
  {
    const py::gil_scoped_release release;
    digests = quancrypt::sha256_each(data.data() + first, size, step, count);
  }
  if (digests.size() != count) return py::none();
  py::list out;
  for (const Digest& digest : digests) {
    out.append(py::bytes(reinterpret_cast<const char*>(digest.data()), digest.size()));
  }
  return out;
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
  m.def("sha256_each", &sha256_each, py::arg("data"), py::arg("first"), py::arg("size"),
        py::arg("step"));
  m.def("find_primes", &find_primes, py::arg("degree"), py::arg("bits"), py::arg("count"),
        py::arg("exclude") = std::vector<std::uint64_t>{});
  m.def("max_modulus_bits", &max_modulus_bits, py::arg("degree"), py::arg("security"));
  m.attr("MAX_ERROR") = kMaxError;
}

}  // namespace quancrypt::bindings
