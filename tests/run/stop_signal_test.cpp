// Signals end a run between steps; the second interrupt ends it at once.
#include "run/stop_signal.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

namespace dsengine {
namespace {

// The wait status of a child that runs `body`.
template <class Body>
int status_of_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(StopSignal, NotesTheFirstSignal) {
  StopSignal stop;
  EXPECT_FALSE(stop.requested());
  EXPECT_EQ(stop.signal(), 0);
  raise(SIGTERM);
  EXPECT_TRUE(stop.requested());
  raise(SIGINT);
  EXPECT_EQ(stop.signal(), SIGTERM);
}

TEST(StopSignal, ANewObjectStartsAfresh) {
  {
    StopSignal stop;
    raise(SIGINT);
    EXPECT_TRUE(stop.requested());
  }
  StopSignal stop;
  EXPECT_FALSE(stop.requested());
  raise(SIGINT);  // the first for this object: the process lives
  EXPECT_EQ(stop.signal(), SIGINT);
}

TEST(StopSignal, SecondInterruptExitsWith130) {
  const int status = status_of_child([] {
    StopSignal stop;
    raise(SIGINT);
    raise(SIGINT);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
}

TEST(StopSignal, FormerHandlersAreBack) {
  const int status = status_of_child([] {
    { StopSignal stop; }
    raise(SIGTERM);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(StopSignal, OneAtATime) {
  StopSignal stop;
  EXPECT_THROW(StopSignal second, InternalError);
  raise(SIGTERM);
  EXPECT_TRUE(stop.requested());
}

}  // namespace
}  // namespace dsengine
