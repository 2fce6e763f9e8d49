// What the bind_*.cpp files share: the bound parameters and conversions between NumPy and pointers.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "rlwe/body.h"
#include "rlwe/parameters.h"
#include "seal_bridge/context.h"

namespace quancrypt::bindings {

namespace py = pybind11;

using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;

/// Parameters, and the same as a SEAL context, whose tables take longer than all of ours: it is made
/// when it is first asked for.
class BoundParameters {
 public:
  explicit BoundParameters(ParameterLiteral literal)
      : core(std::make_shared<const Parameters>(std::move(literal))) {}
  ParametersPtr core;

  /// Throws Error(parameter) if SEAL does not accept the parameters.
  [[nodiscard]] const seal_bridge::Context& seal() const {
    const std::lock_guard<std::mutex> lock(lazy_->mutex);
    if (!lazy_->context) lazy_->context.emplace(core);
    return *lazy_->context;
  }

 private:
  struct Lazy {
    std::mutex mutex;
    std::optional<seal_bridge::Context> context;
  };
  std::unique_ptr<Lazy> lazy_ = std::make_unique<Lazy>();  // a mutex does not move
};

/// What any object with the buffer protocol holds, for as long as this lives. Contiguous, or it is an
/// Error(parameter).
class HeldBytes {
 public:
  explicit HeldBytes(const py::buffer& object) : info_(object.request()) {
    if (info_.ndim > 1 || (info_.ndim == 1 && info_.strides[0] != info_.itemsize)) {
      throw Error(ErrorCode::parameter, "contiguous bytes are needed");
    }
  }
  [[nodiscard]] const std::uint8_t* data() const {
    return static_cast<const std::uint8_t*>(info_.ptr);
  }
  [[nodiscard]] std::size_t size() const {
    return static_cast<std::size_t>(info_.size * info_.itemsize);
  }

 private:
  py::buffer_info info_;
};

/// 32 bytes -> seed; anything else is an Error(parameter).
inline Seed to_seed(std::string_view bytes) {
  Seed seed;
  if (bytes.size() != seed.size()) {
    throw Error(ErrorCode::parameter,
                "a seed has " + std::to_string(bytes.size()) + " bytes; expected 32");
  }
  std::copy(bytes.begin(), bytes.end(), seed.begin());
  return seed;
}

inline py::bytes to_bytes(const Seed& seed) {
  return {reinterpret_cast<const char*>(seed.data()), seed.size()};
}

inline BodyView body_view(const ByteArray& body, const std::optional<std::string>& seed) {
  BodyView view{body.data(), static_cast<std::size_t>(body.size()), std::nullopt};
  if (seed) view.seed = to_seed(*seed);
  return view;
}

void bind_parameters(py::module_& m);
void bind_memory(py::module_& m);
void bind_keys(py::module_& m);
void bind_encryption(py::module_& m);
void bind_aggregation(py::module_& m);
void bind_multiparty(py::module_& m);
void bind_seal(py::module_& m);
void bind_runtime(py::module_& m);
void bind_bench(py::module_& m);

}  // namespace quancrypt::bindings
