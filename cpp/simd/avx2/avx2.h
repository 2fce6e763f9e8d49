// The AVX2 set: AVX2 and FMA (Haswell, Zen and later).
//
// Arithmetic is modulo primes below 2^50 in doubles, whose fused multiply-add gives exact products;
// larger primes (only the slot encoding has them) take the portable kernel. Each function means what
// kernels.h says.
#pragma once

#include "simd/kernels.h"

namespace quancrypt::simd::avx2 {

#include "simd/kernel_declarations.h"

}  // namespace quancrypt::simd::avx2
