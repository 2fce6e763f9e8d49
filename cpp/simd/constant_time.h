// Marks for the test of constant time (`make test-constant-time`): what is secret, and what may be known
// although it was computed from secrets. Valgrind, or clang's MemorySanitizer, then reports every branch
// and every index that depends on a secret. In all other builds the marks are nothing.
//
// Macros, because files of the wide instruction sets include this and must leave no inline function.
#pragma once

#if defined(QUANCRYPT_CONSTANT_TIME_VALGRIND)

#include <valgrind/memcheck.h>
#define QUANCRYPT_SECRET(memory, bytes) VALGRIND_MAKE_MEM_UNDEFINED(memory, bytes)
#define QUANCRYPT_PUBLIC(memory, bytes) VALGRIND_MAKE_MEM_DEFINED(memory, bytes)

#elif defined(QUANCRYPT_CONSTANT_TIME_MSAN)

#include <sanitizer/msan_interface.h>
#define QUANCRYPT_SECRET(memory, bytes) __msan_poison(memory, bytes)
#define QUANCRYPT_PUBLIC(memory, bytes) __msan_unpoison(memory, bytes)

#else

#define QUANCRYPT_SECRET(memory, bytes) static_cast<void>(0)
#define QUANCRYPT_PUBLIC(memory, bytes) static_cast<void>(0)

#endif

namespace quancrypt {

/// Everything that is computed from secrets and yet may be known, and why. SECURITY.md lists the same
/// ("Timing and other side channels"); tests/packaging/test_declassified.py compares.
enum class Declassified {
  ciphertext,    ///< the body of a ciphertext or of a partial decryption, once complete: it is sent
  public_key,    ///< the half of a public key that is made from a secret, once complete: it is sent
  zero_draw,     ///< a ternary draw that is 0 is drawn again: independent of what is kept
  large_draw,    ///< a uniform draw not below the prime is drawn again: independent of what is kept
  not_finite,    ///< an input is NaN or infinite: the error names its position
  huge_message,  ///< a slot message has a coefficient of 2^62 or more: it takes another path
  valid_sum,     ///< one flag for a whole ciphertext: DecryptionError
  impossible_code,  ///< one flag for all coefficients of a secret key that is loaded: the error
  residues_below,  ///< residues of a deal, or of a stored share, are below their primes: else an error
};

}  // namespace quancrypt

/// What `reason` says may be known from here on.
#define QUANCRYPT_DECLASSIFY(reason, memory, bytes)      \
  (static_cast<void>(::quancrypt::Declassified::reason), \
   static_cast<void>(QUANCRYPT_PUBLIC(memory, bytes)))
