// DSENGINE_INSTRUCTION_SET keeps the kernels to AVX2 on a processor that has more.
#include "../../plugins/kernels/cpu/targets.h"
// after targets.h
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdlib>

#include "built_kernels.h"
#include "ops/ops.h"

namespace dsengine {
namespace {

// What Highway dispatches to, once a kernel is bound and has run; the library is the one that the kernels use.
[[noreturn]] void bind_and_tell() {
  setenv("DSENGINE_INSTRUCTION_SET", "avx2", 1);
  const ops::Linear linear(built_kernels(), at::kFloat, 8, 8);
  linear.forward(at::ones({2, 8}), at::ones({8, 8}));
  const size_t chosen = hwy::GetChosenTarget().GetIndex();
  hwy::ChosenTarget avx2;
  avx2.Update(HWY_AVX2);
  std::_Exit(chosen == avx2.GetIndex() ? 0 : 1);
}

TEST(InstructionSet, TheEnvironmentLimitsIt) {
  if (!(hwy::SupportedTargets() & HWY_AVX3)) GTEST_SKIP() << "NOT TESTED: a processor with AVX-512 is needed";
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // the environment is read as the library is loaded
  EXPECT_EXIT(bind_and_tell(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace dsengine
