# The build for the test of constant time: secrets are marked for QUANCRYPT_CONSTANT_TIME, which is valgrind
# or msan (clang's MemorySanitizer). Optimisation stays as it is in a release: what is checked is what
# users get.
include(CheckIncludeFileCXX)
if(QUANCRYPT_CONSTANT_TIME STREQUAL "valgrind")
  find_program(QUANCRYPT_VALGRIND valgrind)
  check_include_file_cxx(valgrind/memcheck.h QUANCRYPT_HAS_MEMCHECK_H)
  if(NOT QUANCRYPT_VALGRIND OR NOT QUANCRYPT_HAS_MEMCHECK_H)
    quancrypt_fail("QUANCRYPT_CONSTANT_TIME=valgrind needs valgrind and its header valgrind/memcheck.h; "
                   "install them (the package valgrind on Debian and Ubuntu) and build again.")
  endif()
  add_compile_definitions(QUANCRYPT_CONSTANT_TIME_VALGRIND)
  add_compile_options(-g1)
elseif(QUANCRYPT_CONSTANT_TIME STREQUAL "msan")
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    quancrypt_fail("QUANCRYPT_CONSTANT_TIME=msan needs clang, and the compiler is ${CMAKE_CXX_COMPILER}; "
                   "name clang and clang++ in the environment variables CC and CXX and build again.")
  endif()
  # Only what the test marks counts as undefined, as the standard library is not instrumented; and only
  # branches and addresses are uses: a secret may be handed on and returned.
  add_compile_definitions(QUANCRYPT_CONSTANT_TIME_MSAN)
  add_compile_options(-g1 -fno-omit-frame-pointer -fsanitize=memory
                      -fno-sanitize-memory-param-retval "SHELL:-mllvm -msan-poison-stack=0")
  add_link_options(-fsanitize=memory)
else()
  quancrypt_fail("QUANCRYPT_CONSTANT_TIME is '${QUANCRYPT_CONSTANT_TIME}', but must be valgrind or msan.")
endif()
