# Compiles SEAL from sources, once for each version, compiler and set of flags, into the cache folder.

# What a CMake started by this one is told: same generator, same compiler.
set(quancrypt_child_arguments
    -G "${CMAKE_GENERATOR}" "-DCMAKE_BUILD_TYPE=Release"
    "-DCMAKE_C_COMPILER=${CMAKE_C_COMPILER}" "-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}"
    "-DCMAKE_C_FLAGS=${CMAKE_C_FLAGS}" "-DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS}")
if(CMAKE_MAKE_PROGRAM)
  list(APPEND quancrypt_child_arguments "-DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}")
endif()
foreach(variable CMAKE_TOOLCHAIN_FILE CMAKE_OSX_ARCHITECTURES CMAKE_OSX_DEPLOYMENT_TARGET CMAKE_OSX_SYSROOT)
  if(${variable})
    string(REPLACE ";" "\\;" value "${${variable}}")
    list(APPEND quancrypt_child_arguments "-D${variable}=${value}")
  endif()
endforeach()

set(quancrypt_seal_options
    -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DSEAL_USE_CXX17=ON -DSEAL_BUILD_DEPS=OFF
    -DCMAKE_CXX_VISIBILITY_PRESET=hidden -DCMAKE_VISIBILITY_INLINES_HIDDEN=ON
    -DSEAL_USE_MSGSL=OFF -DSEAL_USE_ZLIB=OFF -DSEAL_USE_ZSTD=OFF -DSEAL_USE_INTEL_HEXL=OFF
    -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_EXPORT_NO_PACKAGE_REGISTRY=ON -DCMAKE_POLICY_VERSION_MINIMUM=3.13)

# The cache folder; one in the build folder where the user's cannot be written.
function(quancrypt_cache_folder out)
  if(NOT "$ENV{QUANCRYPT_CACHE_DIR}" STREQUAL "")
    set(folder "$ENV{QUANCRYPT_CACHE_DIR}")
  elseif(NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(folder "$ENV{XDG_CACHE_HOME}/quancrypt")
  else()
    set(folder "$ENV{HOME}/.cache/quancrypt")
  endif()
  string(RANDOM LENGTH 12 name)
  set(probe "${folder}/.probe-${name}")
  set(writable OFF)
  if(IS_ABSOLUTE "${folder}")
    execute_process(COMMAND "${CMAKE_COMMAND}" -E make_directory "${probe}" RESULT_VARIABLE failed
                    OUTPUT_QUIET ERROR_QUIET)
    if(NOT failed)
      file(REMOVE_RECURSE "${probe}")
      set(writable ON)
    endif()
  endif()
  if(NOT writable)
    message(STATUS "The cache folder '${folder}' cannot be written: SEAL is kept in the build folder")
    set(folder "${PROJECT_BINARY_DIR}/quancrypt-cache")
    file(MAKE_DIRECTORY "${folder}")
  endif()
  set(${out} "${folder}" PARENT_SCOPE)
endfunction()

# One build at a time holds the lock `name` of the cache folder, until the calling function returns.
macro(quancrypt_lock cache name)
  file(LOCK "${cache}/${name}.lock" GUARD FUNCTION TIMEOUT 1800 RESULT_VARIABLE quancrypt_lock_failed)
  if(quancrypt_lock_failed)
    quancrypt_fail("the lock ${cache}/${name}.lock was not free for 30 minutes (${quancrypt_lock_failed}); "
                   "end the other build that holds it, or name another folder in QUANCRYPT_CACHE_DIR.")
  endif()
endmacro()

# Defines SEAL::seal from the sources of `version` with the digest `digest`. `provider` is their folder, or
# a command called as provider(cache destination), if the cache does not hold the compiled library yet.
function(quancrypt_seal_from_sources version digest provider)
  quancrypt_cache_folder(cache)
  file(REAL_PATH "${CMAKE_C_COMPILER}" c_compiler)
  file(REAL_PATH "${CMAKE_CXX_COMPILER}" cxx_compiler)
  string(SHA256 recipe "${quancrypt_seal_options} ${CMAKE_C_FLAGS} ${CMAKE_CXX_FLAGS} ${c_compiler} \
${cxx_compiler} ${CMAKE_OSX_ARCHITECTURES} ${CMAKE_OSX_DEPLOYMENT_TARGET} ${CMAKE_TOOLCHAIN_FILE} 1")
  string(SUBSTRING ${digest} 0 12 digest)
  string(SUBSTRING ${recipe} 0 12 recipe)
  string(TOLOWER "seal-${version}-${digest}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}-\
${CMAKE_CXX_COMPILER_ID}${CMAKE_CXX_COMPILER_VERSION}-${recipe}" key)
  set(prefix "${cache}/${key}")

  if(NOT EXISTS "${prefix}/complete")
    quancrypt_lock("${cache}" ${key})
  endif()
  if(NOT EXISTS "${prefix}/complete")
    set(work "${cache}/${key}.tmp")  # ours alone, by the lock; what an interrupted build left goes away
    file(REMOVE_RECURSE "${work}" "${prefix}")
    file(MAKE_DIRECTORY "${work}")
    set_property(GLOBAL APPEND PROPERTY QUANCRYPT_TEMPORARY "${work}")
    if(COMMAND ${provider})
      cmake_language(CALL ${provider} "${cache}" "${work}/source")
    else()
      # A copy: SEAL's build files clean up in their own folder.
      file(COPY "${provider}/" DESTINATION "${work}/source" PATTERN .git EXCLUDE)
    endif()
    quancrypt_compile_seal("${work}" ${version})
    file(WRITE "${work}/prefix/complete" "SEAL ${version}\n")
    file(RENAME "${work}/prefix" "${prefix}")
    file(REMOVE_RECURSE "${work}")
  endif()

  set(named "${SEAL_DIR}")
  find_package(SEAL ${version} EXACT CONFIG QUIET PATHS "${prefix}" NO_DEFAULT_PATH)
  unset(SEAL_DIR CACHE)
  if(named)
    set(SEAL_DIR "${named}" CACHE PATH "The folder of SEALConfig.cmake")
  endif()
  if(NOT TARGET SEAL::seal)
    quancrypt_fail("the cached SEAL in ${prefix} is damaged; delete that folder and build again.")
  endif()
  message(STATUS "SEAL ${version}, compiled in ${prefix}")
endfunction()

# Compiles `work`/source into `work`/prefix.
function(quancrypt_compile_seal work version)
  message(STATUS "Compiling SEAL ${version} (once, about a minute)")
  set(log "${PROJECT_BINARY_DIR}/seal-build.log")
  set(hide "-ffile-prefix-map=${work}/source=seal -ffile-prefix-map=${work}/build=seal")
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -S source -B build ${quancrypt_child_arguments} ${quancrypt_seal_options}
            "-DCMAKE_C_FLAGS=${CMAKE_C_FLAGS} ${hide}" "-DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS} ${hide}"
            "-DCMAKE_INSTALL_PREFIX=${work}/prefix"
    WORKING_DIRECTORY "${work}" RESULT_VARIABLE failed OUTPUT_FILE "${log}" ERROR_FILE "${log}")
  if(NOT failed)
    cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
    if("$ENV{CMAKE_BUILD_PARALLEL_LEVEL}" MATCHES "^[0-9]+$")
      set(cores $ENV{CMAKE_BUILD_PARALLEL_LEVEL})
    endif()
    execute_process(COMMAND "${CMAKE_COMMAND}" --build build --target install --parallel ${cores}
                    WORKING_DIRECTORY "${work}" RESULT_VARIABLE failed
                    OUTPUT_FILE "${log}" ERROR_FILE "${log}")
  endif()
  if(failed)
    file(READ "${log}" text)
    message(STATUS "Output of SEAL's build:\n${text}")
    quancrypt_fail("Microsoft SEAL ${version} did not compile with ${CMAKE_CXX_COMPILER} (its output stands "
                   "above); use another compiler (CC, CXX) or an installed SEAL (QUANCRYPT_SEAL=installed).")
  endif()
endfunction()
