// Linear layers: three products of matrices.
#include "kernels.h"
#include "product.h"

namespace cpu {
namespace {

using dse::Op;

struct Linear {
  static constexpr dse::KernelTraits traits{.op = Op::linear, .priority = 1, .row_invariant = true};
  explicit Linear(const dse_operation& o) : in(o.in), out(o.out) { check_instruction_set(); }
  void run(const dse::Call<traits.op>& call) const {
    product({.rows = call.rows(),
             .columns = out,
             .inner = in,
             .a = {call.in<float>("x"), in, 1},
             .b = {call.in<float>("w"), 1, in},
             .c = call.out<float>("y"),
             .c_stride = out,
             .bias = call.in<float>("b"),
             .residual = call.in<float>("residual")});
  }
  int64_t in, out;
};

struct LinearBackward {
  static constexpr dse::KernelTraits traits{.op = Op::linear_backward, .priority = 1, .row_invariant = true};
  explicit LinearBackward(const dse_operation& o) : in(o.in), out(o.out) { check_instruction_set(); }
  void run(const dse::Call<traits.op>& call) const {
    product({.rows = call.rows(),
             .columns = in,
             .inner = out,
             .a = {call.in<float>("dy"), out, 1},
             .b = {call.in<float>("w"), in, 1},
             .c = call.out<float>("dx"),
             .c_stride = in});
  }
  int64_t in, out;
};

// Of some columns: their sums over the rows, in order.
void add_rows(const float* from, int64_t rows, int64_t stride, int64_t columns, float* to) {
  for (int64_t r = 0; r < rows; ++r, from += stride)
    for (int64_t i = 0; i < columns; ++i) to[i] += from[i];
}

struct LinearWeightBackward {
  static constexpr dse::KernelTraits traits{.op = Op::linear_weight_backward, .priority = 1, .row_invariant = true};
  explicit LinearWeightBackward(const dse_operation& o) : in(o.in), out(o.out) { check_instruction_set(); }
  void run(const dse::Call<traits.op>& call) const {
    const float *dy = call.in<float>("dy"), *x = call.in<float>("x");
    if (float* dw = call.out<float>("dw"))
      product({.rows = out,
               .columns = in,
               .inner = call.rows(),
               .a = {dy, 1, out},
               .b = {x, in, 1},
               .c = dw,
               .c_stride = in,
               .accumulate = true});
    if (float* db = call.out<float>("db"))
      dse::parallel_for(0, out, 64, [&](int64_t first, int64_t last) {
        add_rows(dy + first, call.rows(), out, last - first, db + first);
      });
  }
  int64_t in, out;
};

}  // namespace

void add_linear(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Linear>("cpu_linear"));
  items.push_back(dse::kernel_item<LinearBackward>("cpu_linear_backward"));
  items.push_back(dse::kernel_item<LinearWeightBackward>("cpu_linear_weight_backward"));
}

}  // namespace cpu
