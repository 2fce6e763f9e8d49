# Ends the configuration with one sentence, the arguments put together, and removes the folders in the
# global property QUANCRYPT_TEMPORARY. The leading spaces keep CMake from wrapping the sentence.
function(quancrypt_fail)
  get_property(temporary GLOBAL PROPERTY QUANCRYPT_TEMPORARY)
  if(temporary)
    file(REMOVE_RECURSE ${temporary})
  endif()
  set(sentence "")
  math(EXPR last "${ARGC} - 1")
  foreach(i RANGE ${last})
    string(APPEND sentence "${ARGV${i}}")  # one by one: joined as a list they would lose their semicolons
  endforeach()
  message(FATAL_ERROR "\n  QuanCrypt: ${sentence}\n")
endfunction()
