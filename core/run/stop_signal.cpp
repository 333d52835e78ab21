#include "run/stop_signal.h"

#include <unistd.h>

#include <atomic>

#include "base/check.h"

namespace dsengine {
namespace {

// The one mutable global of core/run: a signal handler takes no argument of ours, so it can speak to the
// program through static storage only. Lock-free atomics are allowed in a handler and seen by all threads.
using SignalFlag = std::atomic<std::sig_atomic_t>;
static_assert(SignalFlag::is_always_lock_free);
constinit SignalFlag first_signal{0};
constinit SignalFlag interrupts{0};
constinit SignalFlag installed{0};

extern "C" void note_stop_signal(int signal) {
  if (signal == SIGINT && interrupts.fetch_add(1) > 0) _exit(130);  // 128 + SIGINT, as shells count
  std::sig_atomic_t none = 0;
  first_signal.compare_exchange_strong(none, signal);
}

}  // namespace

StopSignal::StopSignal() {
  DSE_CHECK(installed.exchange(1) == 0, "two StopSignal objects at once");
  first_signal = 0;
  interrupts = 0;
  struct sigaction note {
  }, ignore{};
  note.sa_handler = note_stop_signal;
  note.sa_flags = SA_RESTART;  // files are read and written on, as if nothing had come
  ignore.sa_handler = SIG_IGN;
  sigemptyset(&note.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], kSignals[i] == SIGPIPE ? &ignore : &note, &former_[i]);
    // nohup's wish stands.
    if (kSignals[i] == SIGHUP && former_[i].sa_handler == SIG_IGN) sigaction(SIGHUP, &ignore, nullptr);
  }
}

StopSignal::~StopSignal() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &former_[i], nullptr);
  installed = 0;
}

bool StopSignal::requested() const { return first_signal != 0; }
int StopSignal::signal() const { return first_signal; }

}  // namespace dsengine
