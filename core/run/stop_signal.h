// SIGINT, SIGTERM, SIGHUP (a terminal that closes) and SIGUSR1 (which mpirun hands on to its ranks, and Slurm sends
// before the time is up) as a wish to stop, asked for between steps: the run then writes a checkpoint and ends. SIGPIPE
// is ignored: a log whose reader is gone ends no run. So is SIGHUP where it was before, as nohup does.
//
//   StopSignal stop;
//   for (int64_t step = 0; step < steps && !stop.requested(); ++step) train(step);
//   if (stop.requested()) save_checkpoint();
//
// A second SIGINT ends the process at once with exit status 130. One object at a time; the former handlers
// are back when it ends.
#pragma once
#include <array>
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
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGPIPE};
  std::array<struct sigaction, kSignals.size()> former_{};
};

}  // namespace dsengine
