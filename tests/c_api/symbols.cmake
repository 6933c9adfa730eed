# cmake -D LIBRARY=libmsa.so -D HEADER=c_api.h -D NM=nm -P symbols.cmake: the names that the shared
# library shows are exactly those that the header declares.
execute_process(COMMAND ${NM} -D --defined-only ${LIBRARY}
                OUTPUT_VARIABLE listing COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[A-Za-z] [^ \n]+\n" lines "${listing}")
list(TRANSFORM lines REPLACE "^[A-Za-z] ([^\n]+)\n$" "\\1" OUTPUT_VARIABLE shown)

file(READ ${HEADER} text)
string(REGEX MATCHALL "\nMSA_API [^;(]*\\(" declarations "${text}")
list(TRANSFORM declarations REPLACE "^.*[ *]([a-z0-9_]+)\\($" "\\1" OUTPUT_VARIABLE declared)

list(SORT shown)
list(SORT declared)
list(LENGTH declared count)
if(count EQUAL 0 OR NOT shown STREQUAL declared)
  message(FATAL_ERROR "${LIBRARY} shows\n  ${shown}\nand ${HEADER} declares\n  ${declared}")
endif()
message(STATUS "${count} names, all of them the header's")
