// What the parts of the C test share: checks that say where they failed, and the parts' names.
// The test is C99 and knows of the library nothing but msa/c_api.h.
#pragma once

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "msa/c_api.h"

extern int num_checks;
extern int num_failures;

/// Counts, and on failure prints, one comparison.
void check_true(int ok, const char* what, const char* file, int line);
void check_near(double got, double expected, const char* what, const char* file, int line);
/// The call returned `expected`, and for an error its message is exactly `message`.
void check_status(msa_status got, msa_status expected, const char* message, const char* what,
                  const char* file, int line);

#define CHECK(condition) check_true((condition), #condition, __FILE__, __LINE__)
#define CHECK_NEAR(got, expected) check_near((got), (expected), #got, __FILE__, __LINE__)
#define CHECK_OK(call) check_status((call), MSA_OK, "", #call, __FILE__, __LINE__)
#define CHECK_ERROR(call, status, message) \
  check_status((call), (status), (message), #call, __FILE__, __LINE__)

/// 4 MiB, aligned; enough for every op of these sizes.
msa_workspace test_workspace(void);
/// A context of a backend with two threads, or a failed check and null.
msa_context* test_context(msa_backend backend);

// The parts. Those with a context run on reference and on cpu.
void test_library(void);
void test_growth(const msa_context* context);
void test_errors(const msa_context* context);
void test_pools(void);
void test_index(const msa_context* context);
void test_attention(const msa_context* context);
void test_parts(const msa_context* context);
void test_caches(const msa_context* context);
void test_allocator(void);
void test_training(const msa_context* context);
