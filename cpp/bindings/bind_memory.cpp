#include <algorithm>
#include <limits>

#include "base/entropy.h"
#include "base/pages.h"
#include "base/secure_memory.h"
#include "base/wipe.h"
#include "bindings/bound.h"
#include "bindings/secret_bytes.h"

namespace quancrypt::bindings {
namespace {

SecretBytes random_bytes(std::size_t size) {
  SecretBytes secret(size);
  fill_entropy(secret.data(), secret.size());
  return secret;
}

SecretBytes copy_of(const py::buffer& data) {
  const HeldBytes bytes(data);
  SecretBytes secret(bytes.size());
  std::copy_n(bytes.data(), secret.size(), secret.data());
  return secret;
}

py::buffer_info buffer_of(SecretBytes& secret) {
  static std::uint8_t nothing = 0;
  return {secret.size() > 0 ? secret.data() : &nothing, static_cast<py::ssize_t>(secret.size())};
}

/// Of bytes that were made a moment ago and that nobody else holds. Python shares shorter ones.
void wipe_bytes(const py::bytes& data) {
  const py::ssize_t size = PyBytes_GET_SIZE(data.ptr());
  if (size > 1) wipe(PyBytes_AS_STRING(data.ptr()), static_cast<std::size_t>(size));
}

py::dict counts() {
  const MemoryCounts found = secure_memory_counts();
  py::dict out;
  out["key_bytes"] = found.key;
  out["key_bytes_locked"] = found.key_locked;
  out["working_bytes"] = found.working;
  out["working_bytes_locked"] = found.working_locked;
  out["bytes_left_out_of_dumps"] = found.undumped;
  out["refusals"] = found.refusals;
  const std::size_t limit = lock_limit();
  out["lock_limit"] = limit == std::numeric_limits<std::size_t>::max()
                          ? py::object(py::none())
                          : py::object(py::int_(limit));
  return out;
}

}  // namespace

void bind_memory(py::module_& m) {
  py::class_<SecretBytes>(m, "SecretBytes", py::buffer_protocol())
      .def(py::init<std::size_t>(), py::arg("size"))
      .def_static("random", &random_bytes, py::arg("size"))
      .def_static("copy_of", &copy_of, py::arg("data"))
      .def("__len__", &SecretBytes::size)
      .def("wipe", [](SecretBytes& secret) { wipe(secret.data(), secret.size()); })
      .def_buffer(&buffer_of);
  m.def("wipe_bytes", &wipe_bytes, py::arg("data"));
  m.def("memory_counts", &counts);
}

}  // namespace quancrypt::bindings
