// The AVX-512 set: F, DQ, BW, VL, IFMA, VBMI and VPOPCNTDQ (Ice Lake, Zen 4 and later).
//
// Arithmetic is modulo primes below 2^50 in the 52-bit multipliers of IFMA; larger primes (only the
// slot encoding has them) take the portable kernel. Each function means what kernels.h says.
#pragma once

#include "simd/kernels.h"

namespace quancrypt::simd::avx512 {

#include "simd/kernel_declarations.h"

}  // namespace quancrypt::simd::avx512
