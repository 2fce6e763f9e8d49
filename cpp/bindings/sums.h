// Decrypted sums -> NumPy arrays, whoever decrypts.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "bindings/bound.h"
#include "packing/rescale.h"
#include "packing/unpack_dequantize.h"

namespace quancrypt::bindings {

/// One array for each count: float32, or int64 with `integers`. `run(ciphertexts, sink)` decrypts,
/// without the GIL. Throws Error(decryption) if what it gives is no sum of weight `weight`.
template <class Run>
py::list unpack_sum(const Parameters& parameters, std::uint64_t weight,
                    const std::vector<std::size_t>& counts, const std::vector<double>& factors,
                    bool integers, const Run& run) {
  if (counts.size() != factors.size()) throw Error(ErrorCode::parameter, "a factor for each count");
  py::list arrays;
  std::vector<OutputSegment> segments;
  std::size_t values = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto count = static_cast<py::ssize_t>(counts[i]);
    py::array array = integers ? py::array(py::array_t<std::int64_t>(count))
                               : py::array(py::array_t<float>(count));
    segments.push_back({array.mutable_data(), counts[i], factors[i]});
    arrays.append(std::move(array));
    values += counts[i];
  }
  const ParameterLiteral& literal = parameters.literal();
  if (weight < 1 || weight > literal.max_weight) {
    throw Error(ErrorCode::parameter, "weight is " + std::to_string(weight) + "; allowed: 1 to " +
                                          std::to_string(literal.max_weight));
  }
  const auto q_max = static_cast<std::uint64_t>(parameters.q_max());
  const simd::SumLimits limits{weight * 2 * q_max, parameters.noise_of_sum(weight)};
  UnpackDequantizeSink sink(parameters.layout(), parameters.degree(), std::move(segments), integers,
                            static_cast<std::int64_t>(weight * q_max), limits, num_threads());
  {
    const py::gil_scoped_release release;
    if (literal.smudging_primes > 0) {
      RescaleSink rescaled(parameters.ring(), parameters.data_primes(), literal.smudging_primes,
                           sink);
      run(parameters.ciphertext_count(values), rescaled);
    } else {
      run(parameters.ciphertext_count(values), sink);
    }
  }
  if (!sink.valid()) {
    throw Error(ErrorCode::decryption,
                "the ciphertext does not decrypt to a valid sum: it was not made with this key and "
                "these parameters, or a summand was malformed");
  }
  return arrays;
}

}  // namespace quancrypt::bindings
