// Errors. A UserError is what the user can mend: it ends the run with one clear line and a non-zero exit.
// Anything else thrown is our own bug.
//
//   DSE_CHECK_USER(file.good(), "cannot read {}: run scripts/setup, or give --config", path);
//   DSE_CHECK(offsets.size() == rows + 1, "offsets {} for {} rows", offsets.size(), rows);
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

#include "base/printable.h"

namespace dsengine {

class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Says what, where and what to do; the values come last, and each is cut to kMostShown characters (error_line).
#define DSE_CHECK_USER(condition, ...)                                                  \
  do {                                                                                  \
    if (!(condition)) throw ::dsengine::UserError(::dsengine::error_line(__VA_ARGS__)); \
  } while (0)

#define DSE_CHECK(condition, ...)                                                                    \
  do {                                                                                               \
    if (!(condition))                                                                                \
      throw ::dsengine::InternalError(::fmt::format("{}:{}: {}: ", __FILE__, __LINE__, #condition) + \
                                      ::fmt::format(__VA_ARGS__));                                   \
  } while (0)

[[noreturn]] inline void user_error(const std::string& text) { throw UserError(text); }

}  // namespace dsengine
