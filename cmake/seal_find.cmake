# SEAL that is compiled already: installed, in a folder that the user names, or in our cache.

# Searches as find_package does, `ARGN` being its arguments, and loads the first SEAL that is new enough
# and fit for a Python module: SEAL::seal is defined then. Else sets `out_reason` to a part of a sentence.
function(quancrypt_load_seal out_reason)
  set(${out_reason} "was not found" PARENT_SCOPE)
  # No SEAL is of version 99: this lists the candidates and loads none.
  set(named "${SEAL_DIR}")
  find_package(SEAL 99 EXACT CONFIG QUIET ${ARGN})
  set(configs ${SEAL_CONSIDERED_CONFIGS})
  set(versions ${SEAL_CONSIDERED_VERSIONS})
  foreach(config version IN ZIP_LISTS configs versions)
    get_filename_component(folder "${config}" DIRECTORY)
    if(NOT version MATCHES "^[0-9.]+$" OR version VERSION_LESS QUANCRYPT_SEAL_MINIMUM)
      set(${out_reason} "is version ${version} (in ${folder}), and ${QUANCRYPT_SEAL_MINIMUM} or newer is needed"
          PARENT_SCOPE)
      continue()
    endif()
    quancrypt_check_seal(fit "${folder}" ${version})
    if(NOT fit)
      set(${out_reason} "${version} in ${folder} cannot be linked into a shared library (was it built with \
-DCMAKE_POSITION_INDEPENDENT_CODE=ON? The log is ${PROJECT_BINARY_DIR}/seal-check.log)" PARENT_SCOPE)
      continue()
    endif()
    find_package(SEAL ${version} EXACT CONFIG QUIET REQUIRED PATHS "${folder}" NO_DEFAULT_PATH)
    if(NOT TARGET SEAL::seal)
      add_library(SEAL::seal INTERFACE IMPORTED)
      target_link_libraries(SEAL::seal INTERFACE SEAL::seal_shared)
    endif()
    set(${out_reason} "" PARENT_SCOPE)
    set(QUANCRYPT_SEAL_FOUND "SEAL ${version} in ${folder}" PARENT_SCOPE)
    break()
  endforeach()
  # find_package remembers its find; the next configuration is to search as this one did.
  unset(SEAL_DIR CACHE)
  if(named)
    set(SEAL_DIR "${named}" CACHE PATH "The folder of SEALConfig.cmake")
  endif()
endfunction()

# Compiles and links a module with the SEAL in `folder`, once.
function(quancrypt_check_seal out folder version)
  string(MD5 key "${folder} ${version} ${CMAKE_CXX_COMPILER} ${CMAKE_CXX_FLAGS}")
  if(NOT QUANCRYPT_SEAL_FIT_${key})
    set(build "${PROJECT_BINARY_DIR}/seal-check")
    file(REMOVE_RECURSE "${build}")
    execute_process(
      COMMAND "${CMAKE_COMMAND}" -S "${PROJECT_SOURCE_DIR}/cmake/seal_check" -B "${build}"
              ${quancrypt_child_arguments} "-DSEAL_FOLDER=${folder}" -DSEAL_VERSION=${version}
      COMMAND_ECHO NONE RESULT_VARIABLE failed OUTPUT_VARIABLE log ERROR_VARIABLE log)
    if(NOT failed)
      execute_process(COMMAND "${CMAKE_COMMAND}" --build "${build}" RESULT_VARIABLE failed
                      OUTPUT_VARIABLE more ERROR_VARIABLE more)
    endif()
    file(WRITE "${PROJECT_BINARY_DIR}/seal-check.log" "${log}${more}")
    if(failed)
      set(${out} OFF PARENT_SCOPE)
      return()
    endif()
    set(QUANCRYPT_SEAL_FIT_${key} ON CACHE INTERNAL "SEAL ${version} in ${folder} links")
  endif()
  set(${out} ON PARENT_SCOPE)
endfunction()

# The first way: an installed SEAL. Without one, an error where it was asked for.
function(quancrypt_seal_from_system)
  quancrypt_load_seal(reason)
  if(NOT reason)
    message(STATUS "Installed ${QUANCRYPT_SEAL_FOUND}")
    if(QUANCRYPT_SEAL STREQUAL "auto" AND QUANCRYPT_SEAL_DIR)
      message(STATUS "QUANCRYPT_SEAL_DIR is not used: QUANCRYPT_SEAL=folder would prefer it")
    endif()
  elseif(QUANCRYPT_SEAL STREQUAL "installed")
    quancrypt_fail("QUANCRYPT_SEAL=installed, but the installed Microsoft SEAL ${reason}; install SEAL "
                   "${QUANCRYPT_SEAL_MINIMUM} or newer, name its prefix in CMAKE_PREFIX_PATH, or leave "
                   "QUANCRYPT_SEAL unset to have SEAL downloaded.")
  elseif(NOT reason STREQUAL "was not found")
    message(STATUS "The installed SEAL is skipped: it ${reason}")
  endif()
endfunction()

# The second way: QUANCRYPT_SEAL_DIR, a source folder or an install prefix.
function(quancrypt_seal_from_folder)
  set(folder "${QUANCRYPT_SEAL_DIR}")
  set(advice "name SEAL's source folder or the prefix it is installed in, version \
${QUANCRYPT_SEAL_MINIMUM} or newer, or leave QUANCRYPT_SEAL_DIR unset to have SEAL downloaded.")
  if(NOT folder)
    quancrypt_fail("QUANCRYPT_SEAL=folder, but QUANCRYPT_SEAL_DIR is not set; ${advice}")
  endif()
  get_filename_component(folder "${folder}" ABSOLUTE BASE_DIR "${PROJECT_SOURCE_DIR}")
  if(NOT IS_DIRECTORY "${folder}")
    quancrypt_fail("QUANCRYPT_SEAL_DIR is '${QUANCRYPT_SEAL_DIR}', which is no folder; ${advice}")
  endif()
  if(EXISTS "${folder}/native/src/seal/seal.h" AND EXISTS "${folder}/CMakeLists.txt")
    quancrypt_source_version(version "${folder}")
    if(version VERSION_LESS QUANCRYPT_SEAL_MINIMUM)
      quancrypt_fail("Microsoft SEAL in QUANCRYPT_SEAL_DIR=${QUANCRYPT_SEAL_DIR} is version ${version}, "
                     "too old; ${advice}")
    endif()
    quancrypt_digest_folder(digest "${folder}")
    quancrypt_seal_from_sources(${version} ${digest} "${folder}")
    return()
  endif()
  quancrypt_load_seal(reason PATHS "${folder}" NO_DEFAULT_PATH)
  if(reason STREQUAL "was not found")
    quancrypt_fail("the folder QUANCRYPT_SEAL_DIR=${QUANCRYPT_SEAL_DIR} holds no Microsoft SEAL; ${advice}")
  elseif(reason)
    quancrypt_fail("Microsoft SEAL in QUANCRYPT_SEAL_DIR=${QUANCRYPT_SEAL_DIR} ${reason}; ${advice}")
  endif()
  message(STATUS "${QUANCRYPT_SEAL_FOUND}, named by QUANCRYPT_SEAL_DIR")
endfunction()

# Version in project(SEAL VERSION ...) of a source folder.
function(quancrypt_source_version out folder)
  file(STRINGS "${folder}/CMakeLists.txt" line REGEX "project\\(SEAL" LIMIT_COUNT 1)
  if(NOT line MATCHES "VERSION ([0-9.]+)")
    quancrypt_fail("the version of Microsoft SEAL in ${folder} cannot be read from its CMakeLists.txt; "
                   "name an unmodified source folder in QUANCRYPT_SEAL_DIR.")
  endif()
  set(${out} ${CMAKE_MATCH_1} PARENT_SCOPE)
endfunction()

# Digest of the names and the contents of what SEAL is compiled from.
function(quancrypt_digest_folder out folder)
  file(GLOB_RECURSE files RELATIVE "${folder}" LIST_DIRECTORIES OFF
       "${folder}/CMakeLists.txt" "${folder}/cmake/*" "${folder}/native/src/*")
  set(all "")
  foreach(file IN LISTS files)
    file(SHA256 "${folder}/${file}" digest)
    string(APPEND all "${digest} ${file}\n")
  endforeach()
  string(SHA256 digest "${all}")
  set(${out} ${digest} PARENT_SCOPE)
endfunction()
