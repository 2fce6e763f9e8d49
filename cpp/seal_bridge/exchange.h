// SEAL streams of parameters, keys and ciphertexts, uncompressed: for exchange with trusted SEAL
// programs. SEAL before 4.4.0 must not parse untrusted bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/secure_buffer.h"
#include "rlwe/body.h"
#include "rlwe/keys.h"
#include "seal_bridge/context.h"

namespace quancrypt::seal_bridge {

std::string export_parameters(const Context& context);
/// The secret key in SEAL's NTT form at the key level; the buffer wipes itself.
SecureBuffer<std::uint8_t> export_secret_key(const Context& context, const SecretKey& key);
std::string export_public_key(const Context& context, const PublicKey& key);
/// One stream for each ciphertext, both polynomials expanded, first data level, NTT form.
std::vector<std::string> export_ciphertexts(const Context& context, const BodyView& body,
                                            std::size_t ciphertexts);
/// Into an unseeded body of streams.size() ciphertexts. Throws Error(wire_format) if a stream is no
/// valid two-polynomial ciphertext of these parameters at the first data level and scale.
void import_ciphertexts(const Context& context, const std::vector<std::string_view>& streams,
                        std::uint8_t* body);

}  // namespace quancrypt::seal_bridge
