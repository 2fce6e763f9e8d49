// Parameter sets that the fuzzers read bodies under: the smallest of each shape.
#pragma once

#include <array>
#include <memory>

#include "base/thread_pool.h"
#include "input.h"
#include "rlwe/parameters.h"
#include "rlwe/security.h"

namespace quancrypt::fuzz {

/// The largest primes of these sizes, one each.
inline std::vector<std::uint64_t> primes(std::size_t degree, std::initializer_list<unsigned> bits) {
  std::vector<std::uint64_t> found;
  for (const unsigned b : bits) found.push_back(find_primes(degree, b, 1, found).at(0));
  return found;
}

/// One prime at N = 1024; two data primes, well below their powers of two, and a special one at
/// N = 2048; slots at N = 1024.
inline const std::array<ParametersPtr, 3>& sets() {
  static const std::array<ParametersPtr, 3> made = [] {
    set_num_threads(1);
    ParameterLiteral one;
    one.degree = 1024;
    one.primes = primes(1024, {27});
    one.max_weight = 16;
    one.bits = 2;
    one.fields = 1;
    one.field_bits = 6;
    one.guard_bits = 21;
    one.noise_bound = kMaxError * (2 * one.degree + 1);
    ParameterLiteral two;
    two.degree = 2048;
    two.primes = primes(2048, {17, 16, 20});
    two.max_weight = 4;
    two.bits = 4;
    two.fields = 4;
    two.field_bits = 6;
    two.guard_bits = 8;
    two.noise_bound = kMaxError;
    ParameterLiteral slots;
    slots.encoding = Encoding::slots;
    slots.degree = 1024;
    slots.primes = primes(1024, {27});
    slots.max_weight = 65536;
    slots.scale_bits = 15;
    return std::array<ParametersPtr, 3>{std::make_shared<const Parameters>(one),
                                        std::make_shared<const Parameters>(two),
                                        std::make_shared<const Parameters>(slots)};
  }();
  return made;
}

inline const ParametersPtr& choose_set(Input& input) { return sets()[input.byte() % 3]; }

}  // namespace quancrypt::fuzz
