// How far a long piece of work is: on a terminal one line that is redrawn, elsewhere a log line now and then.
//
//   Progress progress("ppo", stage.max_steps, {.first_step = resumed_at, .log_every = stage.log_every});
//   progress.update(step + 1, {{"reward", reward}, {"kl", kl}});
//   progress.finish();  // or the destructor: leaves the terminal on a fresh line
//
// Terminal:  ppo 120/500 24% 3.1 steps/s 2m03s left reward=0.512 kl=0.031
// Elsewhere: progress name=ppo step=120 steps=500 steps_per_s=3.1 left=2m03s reward=0.512 kl=0.031
#pragma once
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace dsengine {

struct ProgressOptions {
  int64_t first_step = 0;  // done before: they count for "how far", not for the rate
  int64_t log_every = 10;  // steps between log lines where there is no terminal
  std::string unit = "steps";
  int terminal = STDERR_FILENO;  // drawn on if it is one
};

class Progress {
 public:
  using Metrics = std::vector<std::pair<std::string, double>>;

  // total_steps 0: not known; neither share nor time left is shown.
  Progress(std::string name, int64_t total_steps, ProgressOptions options = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t steps_done, const Metrics& metrics = {});
  void finish();  // shows the last state

 private:
  using Clock = std::chrono::steady_clock;

  double rate() const;  // steps a second since the start
  void draw();
  void log();

  std::string name_;
  int64_t total_;
  ProgressOptions options_;
  bool on_terminal_, finished_ = false;
  int64_t step_, shown_step_;
  Metrics metrics_;
  Clock::time_point start_ = Clock::now(), last_draw_{};
};

// "7s", "2m03s", "1h02m", "3d04h".
std::string duration_text(double seconds);

}  // namespace dsengine
