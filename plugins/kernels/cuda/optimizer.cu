// AdamW (Loshchilov and Hutter 2019) and the sum of squares of its gradients, over flat float32 buffers.
#include "kernels.h"

namespace gpu {
namespace {

using dse::Op;

constexpr int kThreads = 256;
constexpr int64_t kElements = 1 << 14;  // of a partial sum

__global__ void sum_of_part(const float* x, int64_t count, double* sums) {
  after_previous();
  const int64_t first = blockIdx.x * kElements, last = first + kElements < count ? first + kElements : count;
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) sum = fma(double(x[i]), double(x[i]), sum);
  sum = block_sum(sum, shared_memory<double>());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
__global__ void sum_of_all(const double* sums, int64_t count, double* to) {
  after_previous();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += sums[i];
  sum = block_sum(sum, shared_memory<double>());
  if (threadIdx.x == 0) *to = sum;
}

struct SumOfSquares {
  static constexpr auto traits = traits_of<float>(Op::sum_of_squares);
  explicit SumOfSquares(const dse_operation& o) { check_card(o); }
  int64_t workspace_bytes(int64_t rows) const { return blocks_of(rows, kElements) * int64_t(sizeof(double)); }
  void run(const dse::Call<traits.op>& call) const {
    auto* const sums = static_cast<double*>(call.raw.workspace);
    const int64_t parts = blocks_of(call.rows(), kElements);
    constexpr size_t room = kThreads / kWarp * sizeof(double);
    launch(sum_of_part, parts, kThreads, room, call.raw.stream, call.in<float>("x"), call.rows(), sums);
    launch(sum_of_all, 1, kThreads, room, call.raw.stream, sums, parts, call.out<double>("sum"));
  }
};

struct Constants {
  float clip, b1, b2, c1, c2, step_size, keep, root2, epsilon;
  int64_t decayed;
};
// Four elements a thread: 16 bytes of each buffer.
__global__ void adamw(const float* gradient, float* w, float* m, float* v, int64_t count, bool whole, Constants a) {
  after_previous();
  const int64_t i = (blockIdx.x * int64_t(blockDim.x) + threadIdx.x) * 4;
  if (i >= count) return;
  whole = whole && i + 4 <= count;
  const auto g = load(gradient, i, count, whole);
  auto value = load(w, i, count, whole), mean = load(m, i, count, whole), square = load(v, i, count, whole);
  for (int j = 0; j < 4; ++j) {
    const float clipped = g.at[j] * a.clip;
    mean.at[j] = a.b1 * mean.at[j] + a.c1 * clipped;
    square.at[j] = a.b2 * square.at[j] + a.c2 * clipped * clipped;
    value.at[j] = value.at[j] * (i + j < a.decayed ? a.keep : 1.0f) -
                  a.step_size * mean.at[j] / (sqrtf(square.at[j]) / a.root2 + a.epsilon);
  }
  store(value, w, i, count, whole), store(mean, m, i, count, whole), store(square, v, i, count, whole);
}

struct AdamW {
  static constexpr auto traits = traits_of<float>(Op::adamw);
  explicit AdamW(const dse_operation& o) { check_card(o); }
  void run(const dse::Call<traits.op>& call) const {
    const double beta1 = call.real("beta1"), beta2 = call.real("beta2");
    const Constants a{float(call.real("clip")),
                      float(beta1),
                      float(beta2),
                      float(1 - beta1),
                      float(1 - beta2),
                      float(call.real("step_size")),
                      float(call.real("keep")),
                      float(call.real("root2")),
                      float(call.real("epsilon")),
                      call.integer("decayed")};
    const float* g = call.in<float>("gradient");
    float *w = call.out<float>("w"), *m = call.out<float>("m"), *v = call.out<float>("v");
    launch(adamw, blocks_of(call.rows(), 4 * kThreads), kThreads, 0, call.raw.stream, g, w, m, v, call.rows(),
           whole_packs<float>(4, g, w, m, v), a);
  }
};

}  // namespace

void add_optimizer(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<SumOfSquares>("cuda_sum_of_squares"));
  items.push_back(dse::kernel_item<AdamW>("cuda_adamw"));
}

}  // namespace gpu
