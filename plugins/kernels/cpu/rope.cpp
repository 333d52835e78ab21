// Rotary positions (Su et al. 2021), by +angle forward and -angle backward.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"

namespace cpu {
namespace {

using dse::Op;

template <Op op>
struct Rope {
  static constexpr dse::KernelTraits traits{.op = op, .priority = 1, .row_invariant = true};
  static constexpr bool forward = op == Op::rope;
  explicit Rope(const dse_operation& o)
      : heads(o.heads),
        width(o.head_dim),
        pairs(o.rope_pairs),
        long_after(o.rope_long_after),
        amplitude(float(o.rope_amplitude)),
        frequencies(o.rope_frequencies, o.rope_frequencies + o.rope_pairs) {
    if (o.rope_long_frequencies)
      long_frequencies.assign(o.rope_long_frequencies, o.rope_long_frequencies + o.rope_pairs);
  }

  void run(const dse::Call<op>& call) const {
    const float* from = call.template in<float>(forward ? "x" : "dy");
    float* to = call.template out<float>(forward ? "y" : "dx");
    const int64_t *positions = call.template in<int64_t>("positions"), *lengths = call.template in<int64_t>("lengths");
    const int64_t heads_turned = call.integer("turned");
    dse::parallel_for(0, call.rows(), 64, [&](int64_t first, int64_t last) {
      static thread_local std::vector<float> cosine, sine;
      cosine.resize(size_t(pairs)), sine.resize(size_t(pairs));
      for (int64_t n = first; n < last; ++n) {
        const auto& rates = !long_frequencies.empty() && lengths[n] > long_after ? long_frequencies : frequencies;
        for (int64_t i = 0; i < pairs; ++i) {  // the angle is rounded to float32, as Hugging Face computes it
          const float angle = float(positions[n]) * rates[i];
          cosine[i] = std::cos(angle) * amplitude, sine[i] = std::sin(angle) * amplitude * (forward ? 1.0f : -1.0f);
        }
        for (int64_t h = 0; h < heads; ++h)
          turn(from + (n * heads + h) * width, to + (n * heads + h) * width, h < heads_turned ? pairs : 0,
               cosine.data(), sine.data());
      }
    });
  }

  void turn(const float* a, float* b, int64_t turned, const float* cosine, const float* sine) const {
    for (int64_t i = 0; i < turned; ++i) {
      b[i] = a[i] * cosine[i] - a[i + turned] * sine[i];
      b[i + turned] = a[i + turned] * cosine[i] + a[i] * sine[i];
    }
    std::copy(a + 2 * turned, a + width, b + 2 * turned);
  }

  int64_t heads, width, pairs, long_after;
  float amplitude;
  std::vector<float> frequencies, long_frequencies;
};

}  // namespace

void add_rope(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Rope<Op::rope>>("cpu_rope"));
  items.push_back(dse::kernel_item<Rope<Op::rope_backward>>("cpu_rope_backward"));
}

}  // namespace cpu
