// New keys and values into their places of the cache.
#include <cstring>

#include "attention.h"
#include "kernels.h"

namespace cpu {
namespace {

struct CacheWrite {
  static constexpr dse::KernelTraits traits{.op = dse::Op::cache_write, .priority = 1, .row_invariant = true};
  explicit CacheWrite(const dse_operation& o) : heads(o.kv_heads), width(o.head_dim) {}
  void run(const dse::Call<traits.op>& call) const {
    const Heads k(call.input("k")), v(call.input("v"));
    float *keys = call.out<float>("keys"), *values = call.out<float>("values");
    const int64_t* row = call.in<int64_t>("rows");
    const size_t bytes = size_t(width) * sizeof(float);
    dse::parallel_for(0, call.rows(), 64, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n)
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t to = (row[n] * heads + h) * width;
          std::memcpy(keys + to, k.row(n, h), bytes);
          std::memcpy(values + to, v.row(n, h), bytes);
        }
    });
  }
  int64_t heads, width;
};

}  // namespace

void add_cache_write(std::deque<dse::Item>& items) { items.push_back(dse::kernel_item<CacheWrite>("cpu_cache_write")); }

}  // namespace cpu
