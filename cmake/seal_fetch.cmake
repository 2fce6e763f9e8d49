# SEAL's sources from elsewhere. Each command puts them into the folder `destination`.

# The third way: an sdist from Python's registry that carries SEAL's sources.
function(quancrypt_seal_from_download)
  quancrypt_seal_from_sources(${QUANCRYPT_SEAL_SDIST_VERSION} ${QUANCRYPT_SEAL_SDIST_SHA256}
                              quancrypt_unpack_sdist)
endfunction()

function(quancrypt_unpack_sdist cache destination)
  quancrypt_sdist(archive "${cache}")
  # Only SEAL's own folder: it is under the MIT licence.
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${destination}.sdist"
       PATTERNS "${QUANCRYPT_SEAL_SDIST_FOLDER}/*")
  file(RENAME "${destination}.sdist/${QUANCRYPT_SEAL_SDIST_FOLDER}" "${destination}")
endfunction()

# The archive in the cache folder, downloaded if it is not there; its SHA-256 is checked at every use.
function(quancrypt_sdist out cache)
  set(archive "${cache}/${QUANCRYPT_SEAL_SDIST}.tar.gz")
  quancrypt_lock("${cache}" download)
  if(NOT EXISTS "${archive}")
    set(work "${cache}/download.tmp")
    file(REMOVE_RECURSE "${work}")
    file(MAKE_DIRECTORY "${work}")
    set_property(GLOBAL APPEND PROPERTY QUANCRYPT_TEMPORARY "${work}")
    quancrypt_pip_download("${work}")
    file(GLOB downloaded "${work}/*.tar.gz")
    file(RENAME "${downloaded}" "${archive}")
    file(REMOVE_RECURSE "${work}")
  endif()
  file(SHA256 "${archive}" digest)
  if(NOT digest STREQUAL QUANCRYPT_SEAL_SDIST_SHA256)
    quancrypt_fail("${archive} has the SHA-256 ${digest} instead of ${QUANCRYPT_SEAL_SDIST_SHA256}, so it is "
                   "not the archive that QuanCrypt was tested with; delete it and build again.")
  endif()
  set(${out} "${archive}" PARENT_SCOPE)
endfunction()

# pip knows the registry, mirrors, proxies and certificates of this machine. It insists on the metadata of
# what it downloads, for which it would install and run the sdist's own build system; cmake/no_build stands
# in for that, so that nothing of the archive is executed. pip checks the hash before it unpacks.
function(quancrypt_pip_download folder)
  set(advice "copy the file ${QUANCRYPT_SEAL_SDIST}.tar.gz into the folder that QUANCRYPT_CACHE_DIR names, \
or set QUANCRYPT_SEAL_DIR to a folder with SEAL, and build again.")
  if(NOT Python_EXECUTABLE)
    quancrypt_fail("Microsoft SEAL cannot be downloaded, as Python 3.11 or newer was not found; install it, "
                   "${advice}")
  endif()
  execute_process(COMMAND "${Python_EXECUTABLE}" -m pip --version RESULT_VARIABLE failed
                  OUTPUT_QUIET ERROR_QUIET)
  if(failed)
    quancrypt_fail("Microsoft SEAL cannot be downloaded, as ${Python_EXECUTABLE} has no pip; run "
                   "'${Python_EXECUTABLE} -m ensurepip', ${advice}")
  endif()
  message(STATUS "Downloading ${QUANCRYPT_SEAL_SDIST}, which carries SEAL ${QUANCRYPT_SEAL_SDIST_VERSION}")
  set(requirements "${folder}/requirements.txt")
  file(WRITE "${requirements}"
       "${QUANCRYPT_SEAL_SDIST_REQUIREMENT} --hash=sha256:${QUANCRYPT_SEAL_SDIST_SHA256}\n")
  set(path "${PROJECT_SOURCE_DIR}/cmake/no_build")
  if(NOT "$ENV{PYTHONPATH}" STREQUAL "")
    set(path "${path}:$ENV{PYTHONPATH}")
  endif()
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env "PYTHONPATH=${path}" "${Python_EXECUTABLE}" -m pip download
            --disable-pip-version-check --no-input --no-deps --no-build-isolation --no-binary pyfhel
            --require-hashes -r "${requirements}" -d "${folder}"
    WORKING_DIRECTORY "${folder}" RESULT_VARIABLE failed OUTPUT_VARIABLE log ERROR_VARIABLE log TIMEOUT 900)
  file(GLOB downloaded "${folder}/*.tar.gz")
  if(log MATCHES "DO NOT MATCH THE HASHES")
    string(REGEX MATCH "Got +([0-9a-f]+)" got "${log}")
    quancrypt_fail("the registry's ${QUANCRYPT_SEAL_SDIST}.tar.gz has the SHA-256 ${CMAKE_MATCH_1} instead of "
                   "${QUANCRYPT_SEAL_SDIST_SHA256}, so it is not the archive that QuanCrypt was tested with; "
                   "use another registry, ${advice}")
  elseif(failed OR NOT downloaded)
    message(STATUS "Output of pip:\n${log}")
    quancrypt_fail("Microsoft SEAL could not be downloaded by pip (its output stands above); check the "
                   "network and pip's settings, ${advice}")
  endif()
endfunction()

# SEAL's own repository, at one commit: its name is a hash of its content.
function(quancrypt_seal_from_upstream)
  quancrypt_seal_from_sources(${QUANCRYPT_SEAL_UPSTREAM_VERSION} ${QUANCRYPT_SEAL_UPSTREAM_COMMIT}
                              quancrypt_fetch_commit)
endfunction()

function(quancrypt_fetch_commit cache destination)
  find_package(Git QUIET)
  if(NOT GIT_EXECUTABLE)
    quancrypt_fail("QUANCRYPT_SEAL=upstream needs git, which was not found; install it, or leave "
                   "QUANCRYPT_SEAL unset.")
  endif()
  message(STATUS "Fetching SEAL ${QUANCRYPT_SEAL_UPSTREAM_VERSION} from ${QUANCRYPT_SEAL_UPSTREAM}")
  file(MAKE_DIRECTORY "${destination}")
  set(log "")
  foreach(arguments "init -q" "fetch -q --depth 1 ${QUANCRYPT_SEAL_UPSTREAM} ${QUANCRYPT_SEAL_UPSTREAM_COMMIT}"
                    "checkout -q --detach ${QUANCRYPT_SEAL_UPSTREAM_COMMIT}")
    separate_arguments(arguments UNIX_COMMAND "${arguments}")
    execute_process(COMMAND "${CMAKE_COMMAND}" -E env GIT_TERMINAL_PROMPT=0 "${GIT_EXECUTABLE}" ${arguments}
                    WORKING_DIRECTORY "${destination}" RESULT_VARIABLE failed
                    OUTPUT_VARIABLE log ERROR_VARIABLE log TIMEOUT 900)
    if(failed)
      message(STATUS "Output of git:\n${log}")
      quancrypt_fail("commit ${QUANCRYPT_SEAL_UPSTREAM_COMMIT} of Microsoft SEAL could not be fetched from "
                     "${QUANCRYPT_SEAL_UPSTREAM} (git's output stands above); check the network, or leave "
                     "QUANCRYPT_SEAL unset to take SEAL from Python's registry.")
    endif()
  endforeach()
endfunction()
