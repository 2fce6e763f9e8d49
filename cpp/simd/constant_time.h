// Marks for the test of constant time (`make test-constant-time`): what is secret, and what may be known
// although it was computed from secrets. Valgrind, or clang's MemorySanitizer, then reports every branch
// and every index that depends on a secret. In all other builds the marks are nothing. What is declassified
// is listed in SECURITY.md, "Timing and other side channels".
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
