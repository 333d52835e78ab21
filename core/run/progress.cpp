#include "run/progress.h"

#include <spdlog/spdlog.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>

namespace dsengine {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);

void write_terminal(int terminal, const std::string& text) {
  // A terminal that is gone is no reason to end the run.
  [[maybe_unused]] const ssize_t written = write(terminal, text.data(), text.size());
}

size_t terminal_width(int terminal) {
  winsize size{};
  return ioctl(terminal, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string metrics_text(const Progress::Metrics& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics) text += fmt::format(" {}={:.4g}", name, value);
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds > 1e9) return "?";
  const auto s = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
}

Progress::Progress(std::string name, int64_t total_steps, ProgressOptions options)
    : name_(std::move(name)),
      total_(total_steps),
      options_(std::move(options)),
      on_terminal_(isatty(options_.terminal) == 1),
      step_(options_.first_step),
      shown_step_(options_.first_step) {}

Progress::~Progress() { finish(); }

void Progress::update(int64_t steps_done, const Metrics& metrics) {
  step_ = steps_done;
  metrics_ = metrics;
  if (on_terminal_) {
    if (Clock::now() - last_draw_ >= kRedrawInterval) draw();
  } else if (step_ - shown_step_ >= options_.log_every) {
    log();
  }
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (on_terminal_) {
    draw();
    write_terminal(options_.terminal, "\n");
  } else if (step_ != shown_step_) {
    log();
  }
}

double Progress::rate() const {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  return seconds > 0 ? static_cast<double>(step_ - options_.first_step) / seconds : 0;
}

void Progress::draw() {
  const double rate = this->rate();
  std::string line = fmt::format("{} {}", name_, step_);
  if (total_ > 0) line += fmt::format("/{} {}%", total_, 100 * step_ / total_);
  line += fmt::format(" {:.3g} {}/s", rate, options_.unit);
  if (total_ > step_) line += fmt::format(" {} left", duration_text(static_cast<double>(total_ - step_) / rate));
  line += metrics_text(metrics_);
  // A line that wraps could not be redrawn in place.
  line.resize(std::min(line.size(), terminal_width(options_.terminal) - 1));
  write_terminal(options_.terminal, "\r\x1b[K" + line);
  last_draw_ = Clock::now();
}

void Progress::log() {
  const double rate = this->rate();
  std::string line = fmt::format("progress name={} step={}", name_, step_);
  if (total_ > 0) line += fmt::format(" {}={}", options_.unit, total_);
  line += fmt::format(" {}_per_s={:.3g}", options_.unit, rate);
  if (total_ > step_) line += fmt::format(" left={}", duration_text(static_cast<double>(total_ - step_) / rate));
  spdlog::info("{}{}", line, metrics_text(metrics_));
  shown_step_ = step_;
}

}  // namespace dsengine
