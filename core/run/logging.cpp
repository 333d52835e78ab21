#include "run/logging.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <iostream>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/printable.h"

namespace dsengine {
namespace {

// The message, without control characters: names, texts of plugins and of the programs that they run are in it.
class PrintableMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string line = printable_line({message.payload.data(), message.payload.size()});
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<PrintableMessage>(); }
};

std::unique_ptr<spdlog::formatter> line_form(const std::string& pattern) {
  auto form = std::make_unique<spdlog::pattern_formatter>();
  form->add_flag<PrintableMessage>('*').set_pattern(pattern);
  return form;
}

}  // namespace

void set_up_logging(const LogOptions& options) {
  const std::string time_and_level = "[%H:%M:%S] %^%l%$ %*";
  auto screen = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  screen->set_formatter(line_form((isatty(STDERR_FILENO) ? "\r\x1b[K" : "") + time_and_level));
  std::vector<spdlog::sink_ptr> sinks{screen};
  if (!options.file.empty()) try {
      sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file.string()));
      sinks.back()->set_formatter(line_form("[%Y-%m-%d %H:%M:%S.%e] %l %*"));
    } catch (const spdlog::spdlog_ex& error) {
      throw UserError(fmt::format("cannot write the log {}: {}", options.file.string(), error.what()));
    }
  auto logger = std::make_shared<spdlog::logger>("dsengine", sinks.begin(), sinks.end());
  // Standard error shows all that the file should hold: a run goes on without it, having said so once.
  logger->set_error_handler([told = false](const std::string& what) mutable {
    if (!std::exchange(told, true)) std::cerr << "warning: " << what << "; the log goes on without it\n";
  });
  const auto level = spdlog::level::from_str(name_of(options.level));
  logger->set_level(options.quiet ? std::max(level, spdlog::level::err) : level);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(logger);
}

bool logging_is_set_up() { return spdlog::default_logger_raw() && spdlog::default_logger_raw()->name() == "dsengine"; }

}  // namespace dsengine
