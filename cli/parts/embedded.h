// Data files that the build puts inside the program (cli/embed.cmake writes embedded.cpp), so that
// the tool needs no file but the model at run time.
#pragma once

#include <string_view>

namespace msa::cli {

std::string_view embedded_tasks();    ///< training/tasks.json: the phrasings that training saw
std::string_view embedded_words();    ///< cli/words.json: words for evaluation only
std::string_view embedded_heldout();  ///< cli/heldout.json: phrasings that training cannot produce
std::string_view embedded_source_root();  ///< the folder that the program was built from

}  // namespace msa::cli
