# Python and pybind11, for the module _core. A build by hand without pybind11 has the C++ tests only.
find_package(Python 3.11 COMPONENTS Interpreter Development.Module QUIET)
if(Python_Development.Module_FOUND)
  if(NOT pybind11_DIR AND NOT DEFINED SKBUILD)
    execute_process(COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
                    OUTPUT_VARIABLE pybind11_hint OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(PYBIND11_FINDPYTHON ON)
  find_package(pybind11 2.13 CONFIG QUIET HINTS ${pybind11_hint})
endif()
if(DEFINED SKBUILD)
  if(NOT Python_Development.Module_FOUND)
    quancrypt_fail("the headers of Python 3.11 or newer were not found for ${Python_EXECUTABLE}; install "
                   "them (the package python3-dev on Debian and Ubuntu) and build again.")
  elseif(NOT pybind11_FOUND)
    quancrypt_fail("pybind11 2.13 or newer was not found; run 'pip install pybind11', or build without "
                   "--no-build-isolation, and try again.")
  endif()
elseif(NOT pybind11_FOUND)
  message(STATUS "pybind11 or Python's headers were not found: the module _core is left out")
endif()
