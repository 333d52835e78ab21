// Activations of a call, and back. A thread a pack.
#include "activations.h"

namespace gpu {
namespace {

using dse::Op;

// Rows of a call: y [N, width] = f(x), or f(gate) up of x = gate | up where `gated`, and back.
template <class T>
struct ActivationRows {
  int64_t rows, width, packs_of_row;
  bool gated, whole;
  const T *x, *dy;
  T *y, *dx;
};

template <class T, uint32_t activation>
__global__ void activate(ActivationRows<T> r) {
  after_previous();
  const int64_t pack = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (pack >= r.rows * r.packs_of_row) return;
  const int64_t n = pack / r.packs_of_row, i = pack % r.packs_of_row * Pack<T>::kSize;
  const T* const x = r.x + n * r.width * (r.gated ? 2 : 1);
  Numbers<T> v = load(x, i, r.width, r.whole), up;
  if (r.gated) up = load(x + r.width, i, r.width, r.whole);
  if (r.y) {
    for (int j = 0; j < Pack<T>::kSize; ++j) v.at[j] = valued<activation>(v.at[j]).value * (r.gated ? up.at[j] : 1.0f);
    store(v, r.y + n * r.width, i, r.width, r.whole);
    return;
  }
  const Numbers<T> g = load(r.dy + n * r.width, i, r.width, r.whole);
  T* const dx = r.dx + n * r.width * (r.gated ? 2 : 1);
  for (int j = 0; j < Pack<T>::kSize; ++j) {
    const Valued f = valued<activation>(v.at[j]);
    v.at[j] = g.at[j] * f.slope * (r.gated ? up.at[j] : 1.0f);
    up.at[j] = g.at[j] * f.value;
  }
  store(v, dx, i, r.width, r.whole);
  if (r.gated) store(up, dx + r.width, i, r.width, r.whole);
}

template <class T>
void launch_rows(uint32_t activation, ActivationRows<T> r, void* stream) {
  r.packs_of_row = blocks_of(r.width, Pack<T>::kSize), r.whole = whole_packs<T>(r.width, r.x, r.dy, r.y, r.dx);
  constexpr void (*kernels[])(ActivationRows<T>){activate<T, DSE_SILU>, activate<T, DSE_RELU>, activate<T, DSE_GELU>,
                                                 activate<T, DSE_GELU_TANH>};
  launch(kernels[activation], blocks_of(r.rows * r.packs_of_row, 256), 256, 0, stream, r);
}

template <Op op, class T>
struct Activation {
  static constexpr auto traits = traits_of<T>(op);
  static constexpr bool gated = op >= Op::gated_activation;
  static constexpr bool backward = op == Op::activation_backward || op == Op::gated_activation_backward;
  explicit Activation(const dse_operation& o) : activation(o.activation), width(o.out) { check_card(o); }

  void run(const dse::Call<op>& call) const {
    ActivationRows<T> r{};
    r.rows = call.rows(), r.width = width, r.gated = gated;
    r.x = call.template in<T>("x");
    if constexpr (backward)
      r.dy = call.template in<T>("dy"), r.dx = call.template out<T>("dx");
    else
      r.y = call.template out<T>("y");
    launch_rows(activation, r, call.raw.stream);
  }

  uint32_t activation;
  int64_t width;
};

}  // namespace

void launch_activation(uint32_t activation, bool gated, int64_t rows, int64_t width, const bf16* x, bf16* y,
                       void* stream) {
  ActivationRows<bf16> r{};
  r.rows = rows, r.width = width, r.gated = gated, r.x = x, r.y = y;
  launch_rows(activation, r, stream);
}

void add_activations(std::deque<dse::Item>& items) {
  add_both<Activation, Op::activation>(items, DSE_BOTH("activation"));
  add_both<Activation, Op::activation_backward>(items, DSE_BOTH("activation_backward"));
  add_both<Activation, Op::gated_activation>(items, DSE_BOTH("gated_activation"));
  add_both<Activation, Op::gated_activation_backward>(items, DSE_BOTH("gated_activation_backward"));
}

}  // namespace gpu
