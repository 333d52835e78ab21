// Ranks as threads of one process, for tests: the same collectives as between processes, through shared memory.
//
//   run_ranks(3, [&](Communicator& ranks) {
//     const int64_t rows = …;                         // each rank has models and plugin instances of its own
//     train(…, ranks);
//   });
//
// A rank that ends, well or with an error, while others wait in a collective or enter one later, makes these throw
// RankLost: nobody hangs.
#pragma once
#include <memory>

#include "comm/communicator.h"

namespace dsengine {

// n communicators made together; each belongs to the thread that uses it. Outlives their use.
class ThreadGroup {
 public:
  explicit ThreadGroup(int64_t size);
  ~ThreadGroup();
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  Communicator& rank(int64_t rank);
  // The rank takes part in no further collective. Any thread, once the rank is in none; the first to leave is named.
  void leave(int64_t rank, const std::string& why);
  // The first rank that left, -1: none has.
  int64_t first_left() const;

 private:
  class State;
  class Rank;
  std::unique_ptr<State> state_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

// Runs the body on `size` threads, a rank each, and returns when all have ended. Throws what the first rank that failed
// threw.
void run_ranks(int64_t size, const std::function<void(Communicator&)>& body);

}  // namespace dsengine
