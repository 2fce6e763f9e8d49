# Provides the target SEAL::seal, Microsoft SEAL 4.1 or newer.
#
# QUANCRYPT_SEAL (CMake or environment variable) says where from:
#   auto        the first of the next three that works (the default)
#   installed   an installed SEAL that find_package finds
#   folder      QUANCRYPT_SEAL_DIR (CMake or environment variable): SEAL's sources, or an install prefix
#   download    the sdist pyfhel 3.5.0, which carries the sources of SEAL 4.1.2, from Python's registry
#   upstream    SEAL 4.4.3, the pinned commit of its own repository, with git
#
# Sources are built once and kept in a cache folder ($QUANCRYPT_CACHE_DIR, $XDG_CACHE_HOME/quancrypt or
# ~/.cache/quancrypt), so that later builds, and builds from other folders, take it from there.
set(QUANCRYPT_SEAL_MINIMUM 4.1)
set(QUANCRYPT_SEAL_SDIST pyfhel-3.5.0)
set(QUANCRYPT_SEAL_SDIST_REQUIREMENT pyfhel==3.5.0)
set(QUANCRYPT_SEAL_SDIST_SHA256 0375b83b5a83026924f59db25c4efa9f27e1e8a66d004658f4d24195986a04b6)
set(QUANCRYPT_SEAL_SDIST_FOLDER ${QUANCRYPT_SEAL_SDIST}/Pyfhel/backend/SEAL)
set(QUANCRYPT_SEAL_SDIST_VERSION 4.1.2)
set(QUANCRYPT_SEAL_UPSTREAM https://github.com/microsoft/SEAL.git)
set(QUANCRYPT_SEAL_UPSTREAM_COMMIT 356f2e6dcc0520dc9fc14e98674d9a56cba6018c)
set(QUANCRYPT_SEAL_UPSTREAM_VERSION 4.4.3)

include(seal_find)
include(seal_fetch)
include(seal_build)

# A variable given to CMake, else the environment's, else `default`.
function(quancrypt_setting name default)
  if(NOT DEFINED ${name} OR "${${name}}" STREQUAL "")
    if("$ENV{${name}}" STREQUAL "")
      set(${name} "${default}" PARENT_SCOPE)
    else()
      set(${name} "$ENV{${name}}" PARENT_SCOPE)
    endif()
  endif()
endfunction()

quancrypt_setting(QUANCRYPT_SEAL auto)
quancrypt_setting(QUANCRYPT_SEAL_DIR "")

set(quancrypt_seal_ways auto installed folder download upstream)
if(NOT QUANCRYPT_SEAL IN_LIST quancrypt_seal_ways)
  list(JOIN quancrypt_seal_ways ", " quancrypt_seal_ways)
  quancrypt_fail("QUANCRYPT_SEAL is '${QUANCRYPT_SEAL}', but must be one of ${quancrypt_seal_ways}.")
endif()

if(QUANCRYPT_SEAL MATCHES "^(auto|installed)$")
  quancrypt_seal_from_system()
endif()
if(NOT TARGET SEAL::seal)
  if(QUANCRYPT_SEAL STREQUAL "folder" OR (QUANCRYPT_SEAL STREQUAL "auto" AND QUANCRYPT_SEAL_DIR))
    quancrypt_seal_from_folder()
  elseif(QUANCRYPT_SEAL STREQUAL "upstream")
    quancrypt_seal_from_upstream()
  else()
    quancrypt_seal_from_download()
  endif()
endif()

get_target_property(quancrypt_seal_include SEAL::seal INTERFACE_INCLUDE_DIRECTORIES)
foreach(folder IN LISTS quancrypt_seal_include)
  quancrypt_hide_folder("${folder}" seal)
endforeach()
