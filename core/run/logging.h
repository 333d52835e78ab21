// Where log lines go: stderr and, for a run, a file. Lines are "event key=value".
//
//   set_up_logging({.level = config.log_level, .file = run.log_file()});
//   spdlog::info("checkpoint step={} seconds={:.1f}", step, seconds);
//   spdlog::warn("metric_not_finite name={}", name);
#pragma once
#include <filesystem>
#include <string>

#include "base/choice.h"

namespace dsengine {

enum class LogLevel { trace, debug, info, warning, error };
template <>
inline constexpr auto kChoices<LogLevel> = std::to_array<const char*>({"trace", "debug", "info", "warning", "error"});

struct LogOptions {
  LogLevel level = LogLevel::info;
  std::filesystem::path file;  // appended to, every line flushed; "": none
  bool quiet = false;          // errors only, whatever the level: ranks other than 0
};

// Replaces spdlog's default logger. On a terminal a log line wipes what Progress has drawn.
void set_up_logging(const LogOptions& options);
bool logging_is_set_up();

}  // namespace dsengine
