#pragma once

#include <cstddef>
#include <cstdint>
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

/// digests[i] = SHA-256 of the `size` bytes at texts[i], i < count, 1 <= count <= kSha256Texts. One text
/// leaves the CPU waiting for its own results: four of one length take half as long each.
using Sha256 = void (*)(const std::uint8_t* const* texts, std::size_t count, std::size_t size,
                        std::uint8_t (*digests)[32]);
inline constexpr std::size_t kSha256Texts = 4;

/// By the CPU's instructions for it; null if it has none, or if the portable set is in use.
Sha256 sha256_kernel();

}  // namespace quancrypt::simd
