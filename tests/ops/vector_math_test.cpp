// exp of the CPU's kernels against the C library's.
#include "../../plugins/kernels/cpu/vector_math.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace {

TEST(VectorMath, ExpIsExp) {
  double worst = 0;
  for (float x = -87; x < 88; x += 0.0137f)
    worst = std::max(worst, std::abs(double(cpu::vector_exp(x)) / std::exp(double(x)) - 1));
  EXPECT_LT(worst, 2.4e-7);  // two units in the last place
  EXPECT_EQ(cpu::vector_exp(0.0f), 1.0f);
  EXPECT_LT(cpu::vector_exp(-1e30f), 2e-38f);
  EXPECT_GT(cpu::vector_exp(1e30f), 1e38f);
}

}  // namespace
