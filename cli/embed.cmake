# Writes OUTPUT, a C++ file that holds TASKS, WORDS and HELDOUT as byte arrays (string literals have
# a length that compilers need not accept). Run by cmake -P whenever one of the files changes.
set(code "// Written by cli/embed.cmake from the project's JSON files.\n")
string(APPEND code "#include \"cli/parts/embedded.h\"\n\nnamespace msa::cli {\nnamespace {\n\n")
foreach(name IN ITEMS tasks words heldout)
  string(TOUPPER "${name}" variable)
  file(READ "${${variable}}" hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
  string(APPEND code "constexpr char k_${name}[] = {${bytes}'\\0'};\n")
endforeach()
string(APPEND code "\n}  // namespace\n\n")
foreach(name IN ITEMS tasks words heldout)
  string(APPEND code "std::string_view embedded_${name}() "
                     "{ return {k_${name}, sizeof k_${name} - 1}; }\n")
endforeach()
string(APPEND code "std::string_view embedded_source_root() { return R\"path(${ROOT})path\"; }\n")
string(APPEND code "\n}  // namespace msa::cli\n")
file(WRITE "${OUTPUT}" "${code}")
