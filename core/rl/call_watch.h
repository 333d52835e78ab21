// Watches a call of code that cannot be interrupted, from beside it.
//
//   const CallWatch watch("reward 'judge'", {.deadline = 60, .stop = &stop, .save = [&] { checkpoint(); }});
//   plugin.score(…);        // the log says each 30 s whom the run waits for
//
// Past its deadline, or where it does not come back soon after a stop was asked for, the process saves and ends: there
// is no other way out of a plugin. Exit status 1 and an error line that names it, or 128 + the signal.
#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "run/stop_signal.h"

namespace dsengine {

class CallWatch {
 public:
  struct Rules {
    double deadline = 0;  // s; 0: none
    const StopSignal* stop = nullptr;
    std::function<void()> save{};  // called on the watch's thread, while the call is inside the plugin
    // By another rank, which saves what is all ranks': this one waits for it (comm/world.h).
    bool told_elsewhere = false;
    std::chrono::milliseconds line_every{30000}, stop_patience{3000};
  };
  CallWatch(std::string who, Rules rules);
  // Ends the watch. Does not return once the process is being ended.
  ~CallWatch();
  CallWatch(const CallWatch&) = delete;
  CallWatch& operator=(const CallWatch&) = delete;

 private:
  void watch();
  [[noreturn]] void end_process(const std::string& error, int status);

  const std::string who_;
  const Rules rules_;
  std::mutex mutex_;
  std::condition_variable returned_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace dsengine
