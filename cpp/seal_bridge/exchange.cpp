#include "seal_bridge/exchange.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/error.h"
#include "wire/residues.h"

namespace quancrypt::seal_bridge {
namespace {

template <class Object>
std::string save(const Object& object) {
  std::string out(static_cast<std::size_t>(object.save_size(::seal::compr_mode_type::none)), '\0');
  const auto written = object.save(reinterpret_cast<::seal::seal_byte*>(out.data()), out.size(),
                                   ::seal::compr_mode_type::none);
  out.resize(static_cast<std::size_t>(written));
  return out;
}

}  // namespace

std::string export_parameters(const Context& context) {
  return save(encryption_parameters(context.parameters()));
}

SecureBuffer<std::uint8_t> export_secret_key(const Context& context, const SecretKey& key) {
  const RnsRing& ring = context.parameters().ring();
  const std::size_t size = ring.prime_count() * ring.degree();
  ::seal::SecretKey result;
  result.data().resize(size);
  std::copy_n(key.ntt(0), size, result.data().data());
  result.parms_id() = context.seal().key_parms_id();
  SecureBuffer<std::uint8_t> out(
      static_cast<std::size_t>(result.save_size(::seal::compr_mode_type::none)));
  result.save(reinterpret_cast<::seal::seal_byte*>(out.data()), out.size(),
              ::seal::compr_mode_type::none);
  return out;
}

std::string export_public_key(const Context& context, const PublicKey& key) {
  const RnsRing& ring = context.parameters().ring();
  const std::size_t size = ring.prime_count() * ring.degree();
  ::seal::PublicKey result;
  result.data().resize(context.seal(), context.seal().key_parms_id(), 2);
  for (std::size_t j = 0; j < 2; ++j) std::copy_n(key.ntt(j, 0), size, result.data().data(j));
  result.data().is_ntt_form() = true;
  result.parms_id() = context.seal().key_parms_id();
  return save(result);
}

std::vector<std::string> export_ciphertexts(const Context& context, const BodyView& body,
                                            std::size_t ciphertexts) {
  check_body_size(context.parameters(), body, ciphertexts);
  std::vector<std::string> streams;
  for (std::size_t index = 0; index < ciphertexts; ++index) {
    ::seal::Ciphertext ciphertext;
    ciphertext.resize(context.seal(), context.seal().first_parms_id(), 2);
    ciphertext.is_ntt_form() = true;
    ciphertext.scale() = context.scale();
    for (std::size_t part = 0; part < 2; ++part) {
      read_polynomial(context.parameters(), body, index, part, ciphertext.data(part));
    }
    streams.push_back(save(ciphertext));
  }
  return streams;
}

void import_ciphertexts(const Context& context, const std::vector<std::string_view>& streams,
                        std::uint8_t* body) {
  const Parameters& parameters = context.parameters();
  for (std::size_t index = 0; index < streams.size(); ++index) {
    const auto refuse = [&](const std::string& reason) {
      throw Error(ErrorCode::wire_format,
                  "SEAL ciphertext " + std::to_string(index) + " is not usable: " + reason);
    };
    ::seal::Ciphertext ciphertext;
    try {
      ciphertext.load(context.seal(),
                      reinterpret_cast<const ::seal::seal_byte*>(streams[index].data()),
                      streams[index].size());
    } catch (const std::exception& error) {
      refuse(error.what());
    }
    if (ciphertext.parms_id() != context.seal().first_parms_id()) {
      refuse("it is not at the first data level");
    }
    if (ciphertext.size() != 2)
      refuse("it has " + std::to_string(ciphertext.size()) + " polynomials");
    if (!ciphertext.is_ntt_form()) refuse("it is not in NTT form");
    if (std::abs(ciphertext.scale() / context.scale() - 1) > 1e-9) {
      refuse("its scale is " + std::to_string(ciphertext.scale()));
    }
    for (std::size_t part = 0; part < 2; ++part) {
      pack_polynomial(parameters.ring(), parameters.data_primes(), ciphertext.data(part),
                      body + (2 * index + part) * parameters.polynomial_bytes());
    }
  }
}

}  // namespace quancrypt::seal_bridge
