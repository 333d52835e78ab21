// The log of a test, in place of the terminal's, while it lives.
//
//   const LogWatch log;                      // or LogWatch log("step=2"): such a line is followed by a SIGTERM, once
//   EXPECT_THAT(log.text(), HasSubstr("plugin open="));
#pragma once
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace dsengine {

class LogWatch {
 public:
  explicit LogWatch(const std::string& stop_at = "")
      : former_(spdlog::default_logger()), sink_(std::make_shared<Sink>(stop_at)) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("watched", sink_));
  }
  ~LogWatch() { spdlog::set_default_logger(former_); }
  LogWatch(const LogWatch&) = delete;
  LogWatch& operator=(const LogWatch&) = delete;

  // Its messages, a line each.
  std::string text() const {
    std::string text;
    for (const auto& line : sink_->lines) text += line + "\n";
    return text;
  }
  int64_t count(const std::string& part) const {
    return std::count_if(sink_->lines.begin(), sink_->lines.end(),
                         [&](const auto& line) { return line.find(part) != line.npos; });
  }

 private:
  struct Sink : spdlog::sinks::base_sink<std::mutex> {
    explicit Sink(std::string at) : stop_at(std::move(at)) {}
    void sink_it_(const spdlog::details::log_msg& message) override {
      lines.emplace_back(message.payload.data(), message.payload.size());
      if (stop_at.empty() || lines.back().find(stop_at) == std::string::npos) return;
      stop_at.clear();
      std::raise(SIGTERM);
    }
    void flush_() override {}
    std::string stop_at;
    std::vector<std::string> lines;
  };
  std::shared_ptr<spdlog::logger> former_;
  std::shared_ptr<Sink> sink_;
};

}  // namespace dsengine
