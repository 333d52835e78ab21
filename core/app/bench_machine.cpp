#include "app/bench_machine.h"

#include <ATen/ATen.h>

#include <array>
#include <atomic>
#include <memory>

#include "app/bench.h"
#include "ops/ops.h"
#include "ops/threads.h"

namespace dsengine {

namespace {

constexpr int64_t kFloats = int64_t{1} << 27;  // 512 MiB, far more than any cache
constexpr int kPasses = 8, kProducts = 6;

// In many sums at once: what limits it is memory, not an addition's latency.
float sum_of(const float* begin, const float* end) {
  std::array<float, 64> sums{};
  for (; end - begin >= int64_t(sums.size()); begin += sums.size())
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += begin[i];
  float sum = 0;
  for (const float part : sums) sum += part;
  return sum;
}

double read_rate() {
  const std::unique_ptr<float[]> buffer(new float[kFloats]);
  parallel_for(0, kFloats, 0, [&](int64_t first, int64_t last) { std::fill(&buffer[first], &buffer[0] + last, 1.0f); });
  std::atomic<float> sum = 0;  // so that nothing is left out
  double best = 0;
  for (int i = 0; i < kPasses; ++i) {
    Lap lap;
    parallel_for(0, kFloats, 0, [&](int64_t first, int64_t last) {
      sum.store(sum_of(&buffer[first], &buffer[0] + last), std::memory_order_relaxed);
    });
    best = std::max(best, double(kFloats * int64_t(sizeof(float))) / 1e9 / lap());
  }
  return best;
}

double product_rate(const Kernels& kernels, int64_t size) {
  const ops::Linear linear(kernels, at::kFloat, size, size);
  const auto options = kernels.device().options(at::kFloat);
  const at::Tensor x = at::full({size, size}, 0.5, options), w = at::full({size, size}, 0.25, options);
  linear.forward(x, w);
  double best = 0;
  for (int i = 0; i < kProducts; ++i) {
    Lap lap;
    linear.forward(x, w);
    best = std::max(best, gflops_of(size, size, size, lap()));
  }
  return best;
}

}  // namespace

MachineRates measure_machine(const Kernels& kernels) {
  const at::NoGradGuard no_grad;
  return {read_rate(), std::max(product_rate(kernels, 1024), product_rate(kernels, 2048))};
}

}  // namespace dsengine
