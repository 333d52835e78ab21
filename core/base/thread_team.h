// Threads that compute together. A loop is cut into chunks as at::parallel_for cuts it, whoever runs them, so that what
// depends on the cut has the same bits on every team of one size. The caller takes part; nobody is bound to a core.
//
//   ThreadTeam team(4);                            // three threads, as far as there are; whoever calls is the fourth
//   team.parallel_for(0, rows, 16, body, &sums);   // body(&sums, first, last) for each chunk of [0, rows)
//   { const LoopsInline here; kernel(); }          // its loops run on this thread alone
//
// Any number of threads may call at once: each has a loop of its own, and who has nothing to do helps any of them. A
// loop asked for inside a loop runs where it is asked for. Who waits looks again for some microseconds (kSpin), and
// only while no more threads are at work than the team has; then it sleeps. A process forked from this one has none of
// the threads: there, loops of the team run on whoever calls.
#pragma once
#include <cstdint>
#include <memory>

namespace dsengine {

class ThreadTeam {
 public:
  using Body = void (*)(void* context, int64_t first, int64_t last);

  explicit ThreadTeam(int size);
  ~ThreadTeam();  // nobody is in a loop
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  // Returns when the whole range is done. What a body throws is thrown here, the first of several, when all chunks are
  // done. At most divup(end - begin, grain) chunks are made, one a thread; grain 0: as many as there are threads.
  void parallel_for(int64_t begin, int64_t end, int64_t grain, Body body, void* context);

 private:
  struct Job;
  struct State;

  const int size_;
  const int64_t forks_;  // that led to this process, when the team was made
  std::unique_ptr<State> state_;
};

// While it lives, loops that this thread asks for run on this thread.
class LoopsInline {
 public:
  LoopsInline();
  ~LoopsInline();
  LoopsInline(const LoopsInline&) = delete;
  LoopsInline& operator=(const LoopsInline&) = delete;

 private:
  const bool before_;
};

}  // namespace dsengine
