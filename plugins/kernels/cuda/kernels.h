// The kernels of this library: float32 and bfloat16 on graphics cards from compute capability 8.0 on. What is summed is
// summed in float32, in an order that shapes alone decide: nothing is added by atomics.
#pragma once
#include "gpu.h"

namespace gpu {

// Sums over rows are made of parts of so many, which are added in order.
inline constexpr int64_t kRowsOfPart = 128;
struct Parts {
  const float* first;
  int64_t count, stride, width;  // part p has the elements [first + p stride, … + width)
};
// to[i] += each part's element i. to: float32 or bfloat16, or an empty slot.
void add_parts(const Parts& parts, const dse_array& to, void* stream);

// What all of them say of themselves: they may stand in a graph, and stand behind those of others. Where a fast
// kernel's rows are not invariant, there may be one of invariant rows behind it.
template <class T>
constexpr dse::KernelTraits traits_of(dse::Op op, bool row_invariant = true) {
  return {.op = op,
          .dtype = kDtype<T>,
          .device = kDevice,
          .priority = row_invariant ? 1 : 2,
          .row_invariant = row_invariant,
          .capturable = true};
}

// A kernel's names for float32 and for bfloat16.
#define DSE_BOTH(name) "cuda_" name, "cuda_" name "_bf16"
template <template <dse::Op, class> class Kernel, dse::Op op>
void add_both(std::deque<dse::Item>& items, const char* name, const char* bf16_name) {
  items.push_back(dse::kernel_item<Kernel<op, float>>(name));
  items.push_back(dse::kernel_item<Kernel<op, bf16>>(bf16_name));
}

// Each file adds its own.
void add_activations(std::deque<dse::Item>& items);
void add_attention(std::deque<dse::Item>& items);
void add_head(std::deque<dse::Item>& items);
void add_linear(std::deque<dse::Item>& items);
void add_norms(std::deque<dse::Item>& items);
void add_optimizer(std::deque<dse::Item>& items);
void add_rounding(std::deque<dse::Item>& items);
void add_rope(std::deque<dse::Item>& items);
void add_row_codes(std::deque<dse::Item>& items);
void add_rows(std::deque<dse::Item>& items);

}  // namespace gpu
