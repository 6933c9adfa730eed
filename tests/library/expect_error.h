// A refusal: the exact message and its code.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "msa/error.h"

namespace msa::test {

template <typename Call>
void expect_error(const Call& call, const std::string& message,
                  ErrorCode code = ErrorCode::kInvalidArgument) {
  try {
    call();
    ADD_FAILURE() << "not refused: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), message);
    EXPECT_EQ(error.code(), code);
  }
}

}  // namespace msa::test
