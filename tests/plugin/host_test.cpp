#include "plugin/host.h"

#include <stdexcept>
#include <thread>

#include "plugin/fixtures.h"

namespace dsengine {
namespace {

using testing::HasSubstr;

TEST(Host, FailureTextIsPerThreadAndSpentOnce) {
  EXPECT_EQ(host_table().fail(DSE_BAD_DATA, "line 3: no prompt"), DSE_BAD_DATA);
  std::thread([] { EXPECT_THAT(error_of([] { check_status(DSE_ERROR, "x"); }), HasSubstr("gave no reason")); }).join();
  EXPECT_EQ(error_of([] { check_status(DSE_BAD_DATA, "dataset 'd'"); }), "dataset 'd': line 3: no prompt");
  EXPECT_THAT(error_of([] { check_status(DSE_BAD_DATA, "dataset 'd'"); }), HasSubstr("code 3"));
  EXPECT_NO_THROW(check_status(DSE_OK, "x"));
}

TEST(Host, CallsForgetEarlierFailuresAndCatchExceptions) {
  host_table().fail(DSE_ERROR, "old");
  dse_status (*quiet)(int) = [](int) -> dse_status { return DSE_ERROR; };
  dse_status (*throwing)(int) = [](int) -> dse_status { throw 5; };
  EXPECT_THAT(error_of([&] { call_plugin("c", quiet, 1); }), HasSubstr("gave no reason"));
  EXPECT_THAT(error_of([&] { call_plugin("c", throwing, 1); }), HasSubstr("no std::exception"));
}

TEST(Host, ParallelForCoversTheRangeByDefaultAndAsInstalled) {
  const auto sum = [](int64_t begin, int64_t end) {
    int64_t total = 0;
    host_table().parallel_for(
        begin, end, 16,
        [](void* context, int64_t first, int64_t last) {
          for (; first < last; ++first) *static_cast<int64_t*>(context) += first;
        },
        &total);
    return total;
  };
  EXPECT_EQ(sum(0, 100), 4950);
  EXPECT_EQ(sum(5, 5), 0);
  set_parallel_for([](int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t), void* c) {
    for (; begin < end; begin += grain) body(c, begin, std::min(begin + grain, end));
    body(c, 1000, 1001);  // a mark that this one ran
  });
  EXPECT_EQ(sum(0, 100), 5950);
  set_parallel_for(nullptr);
  EXPECT_EQ(sum(0, 100), 4950);
}

}  // namespace
}  // namespace dsengine
