#include "base/thread_team.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <latch>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace dsengine {
namespace {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;
using Loop = std::function<void(int64_t, int64_t)>;

void run(ThreadTeam& team, int64_t begin, int64_t end, int64_t grain, const Loop& loop) {
  team.parallel_for(
      begin, end, grain,
      [](void* context, int64_t first, int64_t last) { (*static_cast<const Loop*>(context))(first, last); },
      const_cast<Loop*>(&loop));
}

Ranges chunks(ThreadTeam& team, int64_t begin, int64_t end, int64_t grain) {
  Ranges result;
  std::mutex mutex;
  run(team, begin, end, grain, [&](int64_t first, int64_t last) {
    const std::scoped_lock lock(mutex);
    result.emplace_back(first, last);
  });
  std::sort(result.begin(), result.end());
  return result;
}

// What ATen/Parallel-inl.h and ATen/ParallelOpenMP.h of LibTorch 2.11 do, thread by thread.
Ranges at_parallel_for(int64_t size, int64_t begin, int64_t end, int64_t grain) {
  const auto divup = [](int64_t x, int64_t y) { return (x + y - 1) / y; };
  if (begin >= end) return {};
  const int64_t count = end - begin;
  if (!(count > grain && count > 1 && size > 1)) return {{begin, end}};
  Ranges result;
  int64_t num_threads = size;
  if (grain > 0) num_threads = std::min(num_threads, divup(count, grain));
  const int64_t chunk_size = divup(count, num_threads);
  for (int64_t tid = 0; tid < size; ++tid) {
    const int64_t begin_tid = begin + tid * chunk_size;
    if (begin_tid < end) result.emplace_back(begin_tid, std::min(end, chunk_size + begin_tid));
  }
  return result;
}

TEST(ThreadTeam, CutsARangeAsLibTorchDoes) {
  for (const int size : {1, 2, 3, 5}) {
    ThreadTeam team(size);
    EXPECT_EQ(team.size(), size);
    for (const int64_t begin : {0, -7, 1000})
      for (const int64_t count : {-3, 0, 1, 2, 3, 4, 5, 7, 15, 16, 17, 32, 33, 100})
        for (const int64_t grain : {0, 1, 2, 3, 7, 16, 33, 100, 101})
          EXPECT_EQ(chunks(team, begin, begin + count, grain), at_parallel_for(size, begin, begin + count, grain))
              << size << " threads, [" << begin << ", +" << count << "), grain " << grain;
  }
  EXPECT_EQ(ThreadTeam(-2).size(), 1);
  ThreadTeam four(4);  // by hand: five in chunks of two leave the fourth thread nothing
  EXPECT_EQ(chunks(four, 0, 5, 1), (Ranges{{0, 2}, {2, 4}, {4, 5}}));
}

// Two chunks that wait for each other end only if two threads run them at once, the caller among them.
TEST(ThreadTeam, ThreadsWorkAtOnce) {
  ThreadTeam team(2);
  for (int round = 0; round < 20; ++round) {
    if (round % 2) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the other one sleeps by now
    std::latch both(2);
    std::set<std::thread::id> threads;
    std::mutex mutex;
    run(team, 0, 2, 1, [&](int64_t, int64_t) {
      both.arrive_and_wait();
      const std::scoped_lock lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
    EXPECT_EQ(threads.size(), 2u);
    EXPECT_TRUE(threads.contains(std::this_thread::get_id()));
  }
}

TEST(ThreadTeam, OneThreadStartsNone) {
  const auto threads = [] {
    const std::filesystem::directory_iterator all("/proc/self/task");
    return std::distance(begin(all), end(all));
  };
  const auto before = threads();
  {
    ThreadTeam one(1);
    run(one, 0, 100, 1,
        [caller = std::this_thread::get_id()](int64_t, int64_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
    EXPECT_EQ(threads() - before, 0);
  }
  const ThreadTeam three(3);
  EXPECT_EQ(threads() - before, 2);
}

// On workers and on the caller, and where the outer loop was too small to be cut.
TEST(ThreadTeam, ALoopInsideALoopRunsWhereItIsAskedFor) {
  ThreadTeam team(3);
  for (const int64_t count : {1, 12}) {
    std::atomic<int64_t> sum = 0;
    run(team, 0, count, 1, [&](int64_t first, int64_t last) {
      for (; first < last; ++first)
        run(team, 0, 10, 1, [&, outer = std::this_thread::get_id()](int64_t begin, int64_t end) {
          EXPECT_EQ(std::pair(begin, end), (std::pair<int64_t, int64_t>(0, 10)));
          EXPECT_EQ(std::this_thread::get_id(), outer);
          sum += end - begin;
        });
    });
    EXPECT_EQ(sum, 10 * count);
  }
  EXPECT_EQ(chunks(team, 0, 12, 1).size(), 3u);  // the loops above left the caller as it was
  {
    const LoopsInline here;
    EXPECT_EQ(chunks(team, 0, 12, 1).size(), 1u);
  }
  EXPECT_EQ(chunks(team, 0, 12, 1).size(), 3u);
}

// Every element once, none of another's loop, and what the bodies wrote is there when the call returns.
TEST(ThreadTeam, SeveralThreadsCallAtOnce) {
  ThreadTeam team(3);
  const auto call = [&team](int64_t own) {
    std::vector<int64_t> values(97);
    for (int64_t round = 1; round <= 2000; ++round) {
      run(team, 0, int64_t(values.size()), 1 + round % 40, [&](int64_t first, int64_t last) {
        for (; first < last; ++first) values[size_t(first)] += own + first;
      });
      if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], 2000 * (own + int64_t(i)));
  };
  std::vector<std::thread> callers;
  for (int64_t own = 1; own <= 5; ++own) callers.emplace_back(call, 1000 * own);
  for (auto& caller : callers) caller.join();
}

TEST(ThreadTeam, ABodysExceptionReachesItsCaller) {
  ThreadTeam team(4);
  std::atomic<int> done = 0;
  const Loop third_fails = [&](int64_t first, int64_t) {
    if (first == 2) throw std::runtime_error("third");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++done;
  };
  EXPECT_THROW(run(team, 0, 4, 1, third_fails), std::runtime_error);
  EXPECT_EQ(done, 3);  // of the others none is left behind
  const Loop all_fail = [](int64_t first, int64_t) { throw int(first); };
  try {
    run(team, 0, 4, 1, all_fail);
    ADD_FAILURE() << "nothing was thrown";
  } catch (int first) {
    EXPECT_TRUE(first >= 0 && first < 4);
  }
  EXPECT_THROW(run(team, 0, 1, 1, all_fail), int);  // where nothing is cut, too
  EXPECT_EQ(chunks(team, 0, 4, 1).size(), 4u);
}

TEST(ThreadTeam, AForkedProcessRunsItsLoopsOnTheCaller) {
  auto* team = new ThreadTeam(3);
  ASSERT_EQ(chunks(*team, 0, 30, 1).size(), 3u);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a wait for threads that are not here would be one for ever
    const bool on_caller = chunks(*team, 0, 30, 1) == Ranges{{0, 30}};
    delete team;
    ThreadTeam own(2);
    _exit(on_caller && chunks(own, 0, 30, 1) == Ranges{{0, 15}, {15, 30}} ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(chunks(*team, 0, 30, 1).size(), 3u);
  delete team;
}

}  // namespace
}  // namespace dsengine
