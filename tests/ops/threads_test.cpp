#include "ops/threads.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include "plugin/host.h"

namespace dsengine {
namespace {

// The team is the process's: each test leaves one of one thread.
class Threads : public testing::Test {
 protected:
  Threads() { set_up_team(2); }
  ~Threads() override { set_up_team(1); }
};

size_t chunks_of(int64_t count) {
  std::mutex mutex;
  size_t chunks = 0;
  parallel_for(0, count, 1, [&](int64_t, int64_t) {
    const std::scoped_lock lock(mutex);
    ++chunks;
  });
  return chunks;
}

int threads_of_process() {  // /proc/self/stat, the 20th field
  std::FILE* file = std::fopen("/proc/self/stat", "r");
  int threads = 0;
  const int read = std::fscanf(file,
                               "%*d (%*[^)]) %*c"
                               " %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d",
                               &threads);
  std::fclose(file);
  return read == 1 ? threads : -1;
}

// Both threads of the team are in the body while it computes, so that one of them is no thread of OpenMP's.
TEST_F(Threads, LibTorchInABodyStartsNone) {
  const at::Tensor a = at::ones({300, 300}), long_one = at::ones({1 << 20});
  at::mm(a, a);  // OpenMP's own thread exists from here on
  const int before = threads_of_process();
  ASSERT_GT(before, 1);
  std::latch both(2);
  std::mutex mutex;
  std::vector<int> at_most;
  parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    both.arrive_and_wait();
    const at::Tensor product = at::mm(a, a), sum = long_one + long_one;
    const std::scoped_lock lock(mutex);
    at_most.push_back(at::get_num_threads());
    EXPECT_EQ(product[0][0].item<float>(), 300);
    EXPECT_EQ(sum[0].item<float>(), 2);
  });
  EXPECT_EQ(at_most, (std::vector<int>{1, 1}));
  EXPECT_EQ(threads_of_process(), before);
  EXPECT_EQ(at::get_num_threads(), 2);
}

TEST_F(Threads, OneThreadIsOneForBoth) {
  EXPECT_EQ(chunks_of(8), 2u);
  {
    const OneThread one;
    EXPECT_EQ(chunks_of(8), 1u);
    EXPECT_EQ(at::get_num_threads(), 1);
  }
  EXPECT_EQ(chunks_of(8), 2u);
  EXPECT_EQ(at::get_num_threads(), 2);
  set_up_team(3);
  EXPECT_EQ(chunks_of(9), 3u);
  EXPECT_EQ(at::get_num_threads(), 3);
  set_up_team(1);
  EXPECT_EQ(chunks_of(9), 1u);
}

bool keeps_denormals() {
  volatile float small = 1e-20f;
  return small * 1e-20f != 0;
}

// A plugin whose body flushes denormals, on both of the team's threads.
TEST_F(Threads, KeepTheirFloatingPointState) {
#if defined(__x86_64__)
  struct Both {
    std::latch latch{2};
    std::mutex mutex{};
    int kept = 0;
  };
  for (const bool flush : {true, false}) {
    Both both;
    const auto body = [](void* to, int64_t, int64_t) {
      auto& b = *static_cast<Both*>(to);
      b.latch.arrive_and_wait();
      const std::scoped_lock lock(b.mutex);
      b.kept += keeps_denormals();
      __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
    };
    const auto looking = [](void* to, int64_t, int64_t) {
      auto& b = *static_cast<Both*>(to);
      b.latch.arrive_and_wait();
      const std::scoped_lock lock(b.mutex);
      b.kept += keeps_denormals();
    };
    host_table().parallel_for(0, 2, 1, flush ? +body : +looking, &both);
    EXPECT_EQ(both.kept, 2);
    EXPECT_TRUE(keeps_denormals());
  }
#else
  GTEST_SKIP() << "NOT TESTED: how denormals are flushed is known here for x86-64";
#endif
}

}  // namespace
}  // namespace dsengine
