# One set of warnings for every target of ours.
add_library(msa_warnings INTERFACE)
target_compile_options(msa_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                              -Wsign-conversion)
if(MSA_WARNINGS_AS_ERRORS)
  target_compile_options(msa_warnings INTERFACE -Werror)
endif()
