#include "rl/call_watch.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "base/printable.h"
#include "comm/world.h"

namespace dsengine {

CallWatch::CallWatch(std::string who, Rules rules)
    : who_(std::move(who)), rules_(std::move(rules)), thread_([this] { watch(); }) {}

CallWatch::~CallWatch() {
  {
    const std::scoped_lock lock(mutex_);
    done_ = true;
  }
  returned_.notify_one();
  thread_.join();
}

void CallWatch::watch() {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  auto next_line = begin + rules_.line_every;
  std::optional<Clock::time_point> stop_seen;
  std::unique_lock lock(mutex_);
  while (!returned_.wait_for(lock, std::chrono::milliseconds(50), [this] { return done_; })) {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - begin).count();
    if (now >= next_line) {
      spdlog::info("waiting for=\"{}\" seconds={:.0f}{}", who_, seconds,
                   rules_.deadline > 0 ? fmt::format(" deadline={:g}", rules_.deadline) : "");
      next_line += rules_.line_every;
    }
    if (rules_.deadline > 0 && seconds > rules_.deadline)
      end_process(fmt::format("{}: did not come back within its deadline of {:g} s, and code in the process cannot be "
                              "interrupted: make it faster, or raise its 'deadline'",
                              who_, rules_.deadline),
                  1);
    if (!rules_.stop || !rules_.stop->requested()) continue;
    if (!stop_seen) stop_seen = now;
    if (now - *stop_seen >= rules_.stop_patience) end_process("", 128 + rules_.stop->signal());
  }
}

// Called with mutex_ held: a call that comes back now waits in ~CallWatch for the process to end.
void CallWatch::end_process(const std::string& error, int status) {
  try {
    if (rules_.save) rules_.save();
  } catch (const std::exception& e) {
    spdlog::error("not_saved reason=\"{}\"", e.what());
  }
  if (error.empty()) spdlog::info("stopped while=\"waiting for {}\" note=\"run the same command to go on\"", who_);
  spdlog::default_logger()->flush();
  if (rules_.told_elsewhere) wait_to_be_ended();
  if (!error.empty()) {
    const auto line = "dsengine: error: " + printable_line(error) + "\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
  }
  _exit(status);  // without destructors: the call is still inside
}

}  // namespace dsengine
