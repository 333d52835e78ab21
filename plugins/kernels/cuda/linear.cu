// Linear layers: products with the bias and the residual in them, and the gradients of their weights.
#include "activations.h"
#include "hopper.h"
#include "invariant.h"
#include "kernels.h"
#include "product.h"
#include "thin.h"

namespace gpu {
namespace {

using dse::Op;

// Sums of a part's rows, [parts, width].
template <class T>
__global__ void column_parts(const T* x, int64_t rows, int64_t width, float* parts) {
  after_previous();
  const int64_t i = blockIdx.y * int64_t(blockDim.x) + threadIdx.x;
  if (i >= width) return;
  const int64_t first = blockIdx.x * kRowsOfPart, last = first + kRowsOfPart < rows ? first + kRowsOfPart : rows;
  float sum = 0;
  for (int64_t n = first; n < last; ++n) sum += number(x[n * width + i]);
  parts[blockIdx.x * width + i] = sum;
}

template <Op op, class T>
struct Linear {
  static constexpr auto traits = traits_of<T>(op, false);
  explicit Linear(const dse_operation& o) : in(o.in), out(o.out), products(o), thin(o.in, o.out) {
    check_card(o);
    thin_served = op == Op::linear && sizeof(T) == 2 && o.device_index != DSE_PLANNED && is_hopper(o);
  }
  int64_t part_floats(int64_t rows) const {
    return op == Op::linear_weight_backward ? blocks_of(rows, kRowsOfPart) * out : 0;
  }
  int64_t workspace_bytes(int64_t rows) const {
    return rows > 0 ? Products::kWorkspace + part_floats(rows) * int64_t(sizeof(float)) : 0;
  }

  void run(const dse::Call<op>& call) const {
    const int64_t rows = call.rows();
    if (rows == 0) return;
    Product p{.rows = rows, .columns = out, .inner = in, .a = nullptr, .b = nullptr, .c = nullptr};
    p.type = p.c_type = kDtype<T>, p.workspace = call.raw.workspace, p.stream = call.raw.stream;
    if constexpr (op == Op::linear) {
      p.a = call.template in<T>("x"), p.b = call.template in<T>("w"), p.b_transposed = true;
      p.c = call.output("y").data, p.c_type = call.output("y").dtype;
      p.bias = call.template in<T>("b"), p.residual = call.template in<T>("residual");
      if constexpr (sizeof(T) == 2)
        if (const ThinLinear few = thin_linear(p); thin_served && thin.takes(few)) return thin.run(few);
      if (p.c_type != p.type && (p.bias || p.residual))
        throw dse::Failure("a float32 result of bfloat16 has no bias and no residual here");
      products.run(p);
    } else if constexpr (op == Op::linear_backward) {
      p.columns = in, p.inner = out;
      p.a = call.template in<T>("dy"), p.b = call.template in<T>("w"), p.c = call.output("dx").data;
      products.run(p);
    } else {
      const T* const dy = call.template in<T>("dy");
      p.rows = out, p.columns = in, p.inner = rows;
      p.a = dy, p.a_transposed = true, p.b = call.template in<T>("x"), p.accumulate = true;
      p.c = call.output("dw").data, p.c_type = call.output("dw").dtype;
      if (p.c) products.run(p);
      if (call.output("db").data) add_bias_gradient(dy, rows, call);
    }
  }

  static ThinLinear thin_linear(const Product& p) {
    const auto at = [](const void* data) { return static_cast<const bf16*>(data); };
    return {p.rows, at(p.a), at(p.b), at(p.bias), at(p.residual), p.c, p.c_type != p.type, p.stream};
  }
  void add_bias_gradient(const T* dy, int64_t rows, const dse::Call<op>& call) const {
    auto* const parts = reinterpret_cast<float*>(static_cast<char*>(call.raw.workspace) + Products::kWorkspace);
    const int64_t count = blocks_of(rows, kRowsOfPart);
    launch(column_parts<T>, dim3(unsigned(count), unsigned(blocks_of(out, 128))), 128, 0, call.raw.stream, dy, rows,
           out, parts);
    if constexpr (op == Op::linear_weight_backward)
      add_parts({parts, count, out, out}, call.output("db"), call.raw.stream);
  }

  int64_t in, out;
  Products products;
  ThinProduct thin;
  bool thin_served = false;  // on the card
};

template <Op op, class T>
struct InvariantRows {
  static constexpr auto traits = traits_of<T>(op);
  explicit InvariantRows(const dse_operation& o) : in(o.in), out(o.out) { check_card(o); }
  void run(const dse::Call<op>& call) const {
    InvariantLinear<T> p{.rows = call.rows(), .in = in, .out = out};
    p.x = call.template in<T>("x"), p.w = call.template in<T>("w"), p.bias = call.template in<T>("b");
    p.residual = call.template in<T>("residual");
    p.y = call.output("y").data, p.wide = call.output("y").dtype == DSE_F32;
    launch_invariant(p, call.raw.stream);
  }
  int64_t in, out;
};

// A linear and its activation in one, where products of few rows are the engine's own; of many the one after the other.
template <Op op>
struct Activated {
  static constexpr auto traits = traits_of<bf16>(op, false);
  static constexpr bool gated = op == Op::linear_gated_activation;
  explicit Activated(const dse_operation& o)
      : in(o.in), out(o.out), activation(o.activation), products(o), thin(o.in, o.out, gated) {
    check_card(o);
    if (o.device_index == DSE_PLANNED || !is_hopper(o)) throw dse::Unsupported("cards but those of 9.0");
  }
  int64_t rows_of_w() const { return gated ? 2 * out : out; }
  int64_t workspace_bytes(int64_t rows) const {
    return Products::kWorkspace + rows * rows_of_w() * int64_t(sizeof(bf16));
  }
  void run(const dse::Call<op>& call) const {
    if (call.rows() == 0) return;
    const bf16 *x = call.template in<bf16>("x"), *w = call.template in<bf16>("w"), *b = call.template in<bf16>("b");
    auto* const y = call.template out<bf16>("y");
    const ThinLinear few{call.rows(), x, w, b, nullptr, y, false, call.raw.stream, true, activation};
    if (thin.takes(few)) return thin.run(few);
    auto* const z = reinterpret_cast<bf16*>(static_cast<char*>(call.raw.workspace) + Products::kWorkspace);
    Product p{.rows = call.rows(), .columns = rows_of_w(), .inner = in, .a = x, .b = w, .c = z};
    p.b_transposed = true, p.type = p.c_type = DSE_BF16, p.bias = b;
    p.workspace = call.raw.workspace, p.stream = call.raw.stream;
    products.run(p);
    launch_activation(activation, gated, call.rows(), out, z, y, call.raw.stream);
  }
  int64_t in, out;
  uint32_t activation;
  Products products;
  ThinProduct thin;
};

}  // namespace

void add_linear(std::deque<dse::Item>& items) {
  add_both<Linear, Op::linear>(items, DSE_BOTH("linear"));
  add_both<InvariantRows, Op::linear>(items, DSE_BOTH("linear_invariant"));
  items.push_back(dse::kernel_item<Activated<Op::linear_activation>>("cuda_linear_activation_bf16"));
  items.push_back(dse::kernel_item<Activated<Op::linear_gated_activation>>("cuda_linear_gated_activation_bf16"));
  add_both<Linear, Op::linear_backward>(items, DSE_BOTH("linear_backward"));
  add_both<Linear, Op::linear_weight_backward>(items, DSE_BOTH("linear_weight_backward"));
}

}  // namespace gpu
