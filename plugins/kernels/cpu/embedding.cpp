// The gradient of an embedding: rows are added one after another, in the order of the batch, so that the sum of a
// repeated token is fixed.
#include "kernels.h"

namespace cpu {
namespace {

struct EmbeddingWeightBackward {
  static constexpr dse::KernelTraits traits{
      .op = dse::Op::embedding_weight_backward, .priority = 1, .row_invariant = true};
  explicit EmbeddingWeightBackward(const dse_operation& o) : width(o.out) {}
  void run(const dse::Call<traits.op>& call) const {
    const float* from = call.in<float>("dy");
    const int64_t* row = call.in<int64_t>("ids");
    float* to = call.out<float>("dtable");
    for (int64_t n = 0; n < call.rows(); ++n)
      for (int64_t i = 0; i < width; ++i) to[row[n] * width + i] += from[n * width + i];
  }
  int64_t width;
};

}  // namespace

void add_embedding(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<EmbeddingWeightBackward>("cpu_embedding_weight_backward"));
}

}  // namespace cpu
