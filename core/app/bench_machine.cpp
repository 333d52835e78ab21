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

// A card's work is waited for by reading an element of what it made.
void wait_for(const at::Tensor& made) {
  if (!made.is_cpu()) made.flatten()[0].item<float>();
}

// By LibTorch's sum; many times at once, so that what is waited for is little of it.
double card_read_rate(const Device& device) {
  const at::Tensor buffer = device.empty({8 * kFloats}, at::kFloat).fill_(1);
  wait_for(buffer.sum());
  double best = 0;
  for (int i = 0; i < kPasses; ++i) {
    Lap lap;
    at::Tensor sum;
    for (int j = 0; j < kPasses; ++j) sum = buffer.sum();
    wait_for(sum);
    best = std::max(best, kPasses * double(buffer.nbytes()) / 1e9 / lap());
  }
  return best;
}

double product_rate(const Kernels& kernels, int64_t size, at::ScalarType type) {
  const ops::Linear linear(kernels, type, size, size);
  const auto options = kernels.device().options(type);
  const at::Tensor x = at::full({size, size}, 0.5, options), w = at::full({size, size}, 0.25, options);
  wait_for(linear.forward(x, w));
  const int at_once = kernels.on_card() ? 16 : 1;
  double best = 0;
  for (int i = 0; i < kProducts; ++i) {
    Lap lap;
    at::Tensor y;
    for (int j = 0; j < at_once; ++j) y = linear.forward(x, w);
    wait_for(y);
    best = std::max(best, at_once * gflops_of(size, size, size, lap()));
  }
  return best;
}

}  // namespace

MachineRates measure_machine(const Kernels& kernels, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  if (kernels.on_card()) return {card_read_rate(kernels.device()), product_rate(kernels, 8192, type)};
  // LibTorch's own products of bfloat16, on the CPU, are no measure of anything.
  return {read_rate(), std::max(product_rate(kernels, 1024, at::kFloat), product_rate(kernels, 2048, at::kFloat))};
}

}  // namespace dsengine
