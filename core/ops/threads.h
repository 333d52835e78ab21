// The threads that the engine's loops and the plugins' run on: one team of the process, beside which LibTorch's own
// operations keep their OpenMP.
//
//   set_up_team(4);                                                   // before the first plugin computes
//   parallel_for(0, rows, 32, [&](int64_t first, int64_t last) { … });
//   { const OneThread one; … }                                        // the same on one thread, LibTorch's included
#pragma once
#include <cstdint>

#include "base/thread_team.h"

namespace dsengine {

// The process's team has that many threads from here on, and LibTorch's as many; host->parallel_for of the plugin ABI
// runs on it. Loops in progress end on the team that they began on.
void set_up_team(int threads);

// ThreadTeam::parallel_for of the process's team; before set_up_team on whoever calls. Operations of LibTorch in a body
// run on the body's thread.
void parallel_for(int64_t begin, int64_t end, int64_t grain, void (*body)(void* context, int64_t first, int64_t last),
                  void* context);

template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  parallel_for(
      begin, end, grain,
      [](void* context, int64_t first, int64_t last) { (*static_cast<const F*>(context))(first, last); },
      const_cast<F*>(&f));
}

// While it lives, what this thread computes runs on it alone, LibTorch's operations too.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const LoopsInline loops_;
  const int before_;
};

}  // namespace dsengine
