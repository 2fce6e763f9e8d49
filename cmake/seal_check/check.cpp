#include <seal/seal.h>

// Pulls in most of the library, code that would have to be position-independent included.
int seal_check() {
  seal::EncryptionParameters parameters(seal::scheme_type::ckks);
  parameters.set_poly_modulus_degree(2048);
  parameters.set_coeff_modulus(seal::CoeffModulus::Create(2048, {54}));
  seal::KeyGenerator keys(seal::SEALContext(parameters, false, seal::sec_level_type::tc128));
  return static_cast<int>(keys.secret_key().data().coeff_count());
}
