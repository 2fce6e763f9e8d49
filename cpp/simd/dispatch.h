#pragma once

#include <string>
#include <vector>

#include "simd/kernels.h"

namespace quancrypt::simd {

/// The set in use: QUANCRYPT_BACKEND if set, else the best that this machine runs; chosen once.
/// Throws Error(parameter) if the variable names a set that is unknown or that cannot run here.
const KernelTable& kernels();

/// Sets that run on this machine, best first; "portable" is always the last.
std::vector<const KernelTable*> available_kernels();

/// The set of that name among available_kernels(); throws Error(parameter) that names the choices.
const KernelTable& kernels_named(const std::string& name);

}  // namespace quancrypt::simd
