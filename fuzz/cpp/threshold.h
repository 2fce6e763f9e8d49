// A threshold set for the fuzzers, and parties who have met.
#pragma once

#include "multiparty/party.h"
#include "sets.h"

namespace quancrypt::fuzz {

inline constexpr std::size_t kParties = 3;
inline constexpr std::size_t kNeeded = 2;

/// N = 2048, one data prime for fields and one for smudging.
inline const ParametersPtr& threshold_set() {
  static const ParametersPtr made = [] {
    set_num_threads(1);
    ParameterLiteral p;
    p.degree = 2048;
    p.primes = primes(2048, {16, 18, 20});
    p.max_weight = 1;
    p.bits = 2;
    p.fields = 1;
    p.field_bits = 4;
    p.guard_bits = 2;
    p.noise_bound = 1 + kParties * 2048;
    p.parties = kParties;
    p.smudging_bits = 14;
    p.smudging_primes = 1;
    return std::make_shared<const Parameters>(p);
  }();
  return made;
}

}  // namespace quancrypt::fuzz
