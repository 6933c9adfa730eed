// The handles of the C API under a fuzzer: the contexts that calls run on, and the parts that fuzz
// page allocators, options and the capability query.
#pragma once

#include "fuzz/byte_reader.h"
#include "msa/c_api.h"

namespace msa::fuzz {

/// Made once and kept: what a call runs on, and on what else its result must be the same.
struct Contexts {
  const msa_context* reference;
  const msa_context* cpu;        // three workers that take the tasks backwards
  const msa_context* cpu_alone;  // one thread
  const msa_context* cpu_wrong;  // a pool that breaks its contract
};
const Contexts& contexts();

void fuzz_allocator(ByteReader& bytes);
void fuzz_questions(ByteReader& bytes);

}  // namespace msa::fuzz
