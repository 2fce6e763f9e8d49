// The map of the native module: one bind_*.cpp file for each area. No mathematics here.
#include <exception>

#include "bindings/bound.h"

namespace {
namespace py = pybind11;
using quancrypt::ErrorCode;

const char* class_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::parameter:
      return "ParameterError";
    case ErrorCode::capacity:
      return "CapacityError";
    case ErrorCode::wire_format:
      return "WireFormatError";
    case ErrorCode::decryption:
      return "DecryptionError";
    case ErrorCode::system:
      break;
  }
  return "QuanCryptError";
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const quancrypt::Error& error) {
    const py::object type =
        py::module_::import("quancrypt_native.errors").attr(class_name(error.code()));
    PyErr_SetString(type.ptr(), error.what());
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native core of quancrypt_native. Private: use the package's public names.";
  py::register_local_exception_translator(translate);
  quancrypt::bindings::bind_runtime(m);
  quancrypt::bindings::bind_memory(m);
  quancrypt::bindings::bind_parameters(m);
  quancrypt::bindings::bind_keys(m);
  quancrypt::bindings::bind_encryption(m);
  quancrypt::bindings::bind_aggregation(m);
  quancrypt::bindings::bind_multiparty(m);
  quancrypt::bindings::bind_seal(m);
  quancrypt::bindings::bind_bench(m);
}
