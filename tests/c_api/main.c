// The C API used from C alone: known values and errors of every function.
#include <stdlib.h>

#include "check.h"

int num_checks = 0;
int num_failures = 0;

void check_true(int ok, const char* what, const char* file, int line) {
  ++num_checks;
  if (ok) return;
  ++num_failures;
  printf("%s:%d: %s does not hold\n", file, line, what);
}

void check_near(double got, double expected, const char* what, const char* file, int line) {
  ++num_checks;
  if (got == expected || fabs(got - expected) <= 1e-5 * (1 + fabs(expected))) return;
  ++num_failures;
  printf("%s:%d: %s is %.9g, expected %.9g\n", file, line, what, got, expected);
}

void check_status(msa_status got, msa_status expected, const char* message, const char* what,
                  const char* file, int line) {
  ++num_checks;
  if (got == expected && (got == MSA_OK || strcmp(msa_last_error(), message) == 0)) return;
  ++num_failures;
  printf("%s:%d: %s\n  returned \"%s\": %s\n  expected \"%s\": %s\n", file, line, what,
         msa_status_name(got), got == MSA_OK ? "" : msa_last_error(), msa_status_name(expected),
         message);
}

msa_workspace test_workspace(void) {
  static unsigned char memory[(4 << 20) + 64];
  msa_workspace workspace = {memory + (64 - (uintptr_t)memory % 64) % 64, 4 << 20, NULL};
  return workspace;
}

msa_context* test_context(msa_backend backend) {
  const msa_context_options options = {
      .struct_size = sizeof options, .backend = backend, .num_threads = 2};
  msa_context* context = NULL;
  CHECK_OK(msa_context_create(&options, &context));
  CHECK(msa_context_backend(context) == backend);
  CHECK(msa_context_num_threads(context) == 2);
  return context;
}

int main(void) {
  test_library();
  test_pools();
  test_allocator();
  const msa_backend backends[] = {MSA_BACKEND_REFERENCE, MSA_BACKEND_CPU};
  for (size_t n = 0; n < sizeof backends / sizeof backends[0]; ++n) {
    msa_context* context = test_context(backends[n]);
    if (context == NULL) return 1;
    test_growth(context);
    test_errors(context);
    test_index(context);
    test_attention(context);
    test_parts(context);
    test_caches(context);
    test_training(context);
    msa_context_destroy(context);
  }
  printf("%d checks, %d failures\n", num_checks, num_failures);
  return num_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
