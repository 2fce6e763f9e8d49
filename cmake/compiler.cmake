# The compiler, checked before CMake's own long message about it, and the flags of all our code.
include(CheckLanguage)
set(quancrypt_asked "")
foreach(variable CC CXX)
  if(NOT "$ENV{${variable}}" STREQUAL "")
    list(APPEND quancrypt_asked "the environment variable ${variable} is '$ENV{${variable}}'")
  endif()
endforeach()
foreach(language CXX C)
  if(CMAKE_${language}_COMPILER)
    list(APPEND quancrypt_asked "CMAKE_${language}_COMPILER is '${CMAKE_${language}_COMPILER}'")
    find_program(found NAMES "${CMAKE_${language}_COMPILER}" NO_CACHE)
  else()
    check_language(${language})
    set(found "${CMAKE_${language}_COMPILER}")
  endif()
  if(NOT found)
    list(JOIN quancrypt_asked ", " quancrypt_asked)
    if(quancrypt_asked)
      string(PREPEND quancrypt_asked ": ")
    endif()
    quancrypt_fail("no working C and C++ compiler was found${quancrypt_asked}; install one, such as g++ 10 "
                   "or newer, or name one in the environment variables CC and CXX, and build again.")
  endif()
  unset(found)
endforeach()
enable_language(CXX)
enable_language(C)  # Microsoft SEAL's build asks for it

if(NOT cxx_std_20 IN_LIST CMAKE_CXX_COMPILE_FEATURES
   OR (CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 10))
  quancrypt_fail("the C++ compiler ${CMAKE_CXX_COMPILER} (${CMAKE_CXX_COMPILER_ID} "
                 "${CMAKE_CXX_COMPILER_VERSION}) does not know C++20; name a newer one, such as g++ 10, "
                 "in the environment variables CC and CXX, and build again.")
endif()

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# What our own targets link to; third-party headers are not held to it.
add_library(quancrypt_warnings INTERFACE)
target_compile_options(quancrypt_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow $<$<BOOL:${QUANCRYPT_WERROR}>:-Werror>)

# No folder of the build machine in what is compiled: neither in __FILE__ nor in debug information.
function(quancrypt_hide_folder folder name)
  add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-ffile-prefix-map=${folder}=${name}>")
endfunction()
quancrypt_hide_folder("${PROJECT_SOURCE_DIR}" quancrypt)
quancrypt_hide_folder("${PROJECT_BINARY_DIR}" build)

if(QUANCRYPT_SANITIZE)
  # At -O1, as AddressSanitizer's authors advise, what takes minutes to compile at -O3 takes one.
  add_compile_options(-fsanitize=${QUANCRYPT_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all -O1 -g1)
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
  add_link_options(-fsanitize=${QUANCRYPT_SANITIZE})
endif()

set(QUANCRYPT_CONSTANT_TIME "" CACHE STRING
    "Mark secrets for a checker (simd/constant_time.h): valgrind, or msan with clang")
if(QUANCRYPT_CONSTANT_TIME)
  include(constant_time)
endif()
