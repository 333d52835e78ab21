// SIGINT and SIGTERM as a wish to stop, asked for between steps: the run then writes a checkpoint and ends.
//
//   StopSignal stop;
//   for (int64_t step = 0; step < steps && !stop.requested(); ++step) train(step);
//   if (stop.requested()) save_checkpoint();
//
// A second SIGINT ends the process at once with exit status 130. One object at a time; the former handlers
// are back when it ends.
#pragma once
#include <csignal>

namespace dsengine {

class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const;  // any thread
  int signal() const;      // the first that came, 0: none

 private:
  struct sigaction old_interrupt_ {
  }, old_terminate_{};
};

}  // namespace dsengine
