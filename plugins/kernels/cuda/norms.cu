// RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016): a block a row. Gradients of their weights are sums
// over rows: of parts of 128 rows, which are added in order.
#include "kernels.h"

namespace gpu {
namespace {

using dse::Op;

// Rows [N, width] of a call; what an operation has none of is null.
template <class T>
struct NormRows {
  int64_t width;
  float eps, shift;
  bool whole;  // see load
  const T *dy, *x, *w, *b;
  const float *mean, *rstd;  // [N], of the forward
  T *y, *dx;
  float *new_mean, *new_rstd;
};

template <class T>
__device__ Numbers<T> weights(const NormRows<T>& r, int64_t i) {
  Numbers<T> w;
  if (r.w) w = load(r.w, i, r.width, r.whole);
  for (float& one : w.at) one = r.w ? one + r.shift : 1.0f;
  return w;
}

template <class T>
__global__ void rms_norm(NormRows<T> r) {
  after_previous();
  const int64_t n = blockIdx.x;
  const T* x = r.x + n * r.width;
  float squares = 0;
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole);
    for (const float one : v.at) squares = fmaf(one, one, squares);
  });
  squares = block_sum(squares, shared_memory<float>());
  const float rstd = 1.0f / sqrtf(squares / float(r.width) + r.eps);
  if (threadIdx.x == 0) r.new_rstd[n] = rstd;
  each_pack<T>(r.width, [&](int64_t i) {
    Numbers<T> v = load(x, i, r.width, r.whole);
    const Numbers<T> w = weights(r, i);
    for (int j = 0; j < Pack<T>::kSize; ++j) v.at[j] = v.at[j] * rstd * w.at[j];
    store(v, r.y + n * r.width, i, r.width, r.whole);
  });
}

template <class T>
__global__ void rms_norm_backward(NormRows<T> r) {
  after_previous();
  const int64_t n = blockIdx.x;
  const T *x = r.x + n * r.width, *dy = r.dy + n * r.width;
  const float rstd = r.rstd[n];
  float product = 0;
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole), g = load(dy, i, r.width, r.whole), w = weights(r, i);
    for (int j = 0; j < Pack<T>::kSize; ++j) product = fmaf(g.at[j] * w.at[j], v.at[j], product);
  });
  const float pull = block_sum(product, shared_memory<float>()) * rstd * rstd * rstd / float(r.width);
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole), w = weights(r, i);
    Numbers<T> g = load(dy, i, r.width, r.whole);
    for (int j = 0; j < Pack<T>::kSize; ++j) g.at[j] = g.at[j] * w.at[j] * rstd - v.at[j] * pull;
    store(g, r.dx + n * r.width, i, r.width, r.whole);
  });
}

template <class T>
__global__ void layer_norm(NormRows<T> r) {
  after_previous();
  const int64_t n = blockIdx.x;
  const T* x = r.x + n * r.width;
  float sum = 0, squares = 0;
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole);
    for (const float one : v.at) sum += one;
  });
  const float mean = block_sum(sum, shared_memory<float>()) / float(r.width);
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole);
    for (int j = 0; j < Pack<T>::kSize; ++j) {
      const float centred = i + j < r.width ? v.at[j] - mean : 0;
      squares = fmaf(centred, centred, squares);
    }
  });
  squares = block_sum(squares, shared_memory<float>());
  const float rstd = 1.0f / sqrtf(squares / float(r.width) + r.eps);
  if (threadIdx.x == 0) r.new_mean[n] = mean, r.new_rstd[n] = rstd;
  each_pack<T>(r.width, [&](int64_t i) {
    Numbers<T> v = load(x, i, r.width, r.whole), b{};
    const Numbers<T> w = weights(r, i);
    if (r.b) b = load(r.b, i, r.width, r.whole);
    for (int j = 0; j < Pack<T>::kSize; ++j) v.at[j] = (v.at[j] - mean) * rstd * w.at[j] + b.at[j];
    store(v, r.y + n * r.width, i, r.width, r.whole);
  });
}

template <class T>
__global__ void layer_norm_backward(NormRows<T> r) {
  after_previous();
  const int64_t n = blockIdx.x;
  const T *x = r.x + n * r.width, *dy = r.dy + n * r.width;
  const float mean = r.mean[n], rstd = r.rstd[n];
  float product = 0, sum = 0;
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole), g = load(dy, i, r.width, r.whole), w = weights(r, i);
    for (int j = 0; j < Pack<T>::kSize; ++j) {
      const float slope = g.at[j] * w.at[j];  // 0 beyond the end
      product = fmaf(slope, (v.at[j] - mean) * rstd, product), sum += slope;
    }
  });
  const float pull = block_sum(product, shared_memory<float>()) / float(r.width);
  const float shift = block_sum(sum, shared_memory<float>()) / float(r.width);
  each_pack<T>(r.width, [&](int64_t i) {
    const Numbers<T> v = load(x, i, r.width, r.whole), w = weights(r, i);
    Numbers<T> g = load(dy, i, r.width, r.whole);
    for (int j = 0; j < Pack<T>::kSize; ++j)
      g.at[j] = (g.at[j] * w.at[j] - shift - (v.at[j] - mean) * rstd * pull) * rstd;
    store(g, r.dx + n * r.width, i, r.width, r.whole);
  });
}

// Sums over a part's rows: of dy x̂ and of dy, [parts, 2, width].
template <class T>
__global__ void norm_weight_parts(NormRows<T> r, int64_t rows, float* parts) {
  after_previous();
  const int64_t i = blockIdx.y * int64_t(blockDim.x) + threadIdx.x;
  if (i >= r.width) return;
  const int64_t first = blockIdx.x * kRowsOfPart, last = first + kRowsOfPart < rows ? first + kRowsOfPart : rows;
  float dw = 0, db = 0;
  for (int64_t n = first; n < last; ++n) {
    const float g = number(r.dy[n * r.width + i]), mean = r.mean ? r.mean[n] : 0;
    dw = fmaf(g, (number(r.x[n * r.width + i]) - mean) * r.rstd[n], dw), db += g;
  }
  parts[(2 * int64_t(blockIdx.x)) * r.width + i] = dw, parts[(2 * int64_t(blockIdx.x) + 1) * r.width + i] = db;
}

template <Op op, class T>
struct Norm {
  static constexpr auto traits = traits_of<T>(op);
  static constexpr bool of_weights = op == Op::rms_norm_weight_backward || op == Op::layer_norm_weight_backward;
  static constexpr bool layer = op >= Op::layer_norm;
  explicit Norm(const dse_operation& o) : width(o.in), eps(float(o.eps)), shift(float(o.shift)) { check_card(o); }
  int64_t workspace_bytes(int64_t rows) const {
    return of_weights ? blocks_of(rows, kRowsOfPart) * 2 * width * int64_t(sizeof(float)) : 0;
  }

  void run(const dse::Call<op>& call) const {
    NormRows<T> r{};
    r.width = width, r.eps = eps, r.shift = shift, r.x = call.template in<T>("x");
    if constexpr (!of_weights) r.w = call.template in<T>("w");
    if constexpr (op == Op::layer_norm) r.b = call.template in<T>("b");
    if constexpr (op == Op::rms_norm || op == Op::layer_norm) {
      r.y = call.template out<T>("y"), r.new_rstd = call.template out<float>("rstd");
      if constexpr (layer) r.new_mean = call.template out<float>("mean");
      by_rows(call, r, layer ? layer_norm<T> : rms_norm<T>);
    } else {
      r.dy = call.template in<T>("dy"), r.rstd = call.template in<float>("rstd");
      if constexpr (layer) r.mean = call.template in<float>("mean");
      if constexpr (of_weights) {
        add_weight_gradients(call, r);
      } else {
        r.dx = call.template out<T>("dx");
        by_rows(call, r, layer ? layer_norm_backward<T> : rms_norm_backward<T>);
      }
    }
  }

  void by_rows(const dse::Call<op>& call, NormRows<T>& r, void (*kernel)(NormRows<T>)) const {
    r.whole = whole_packs<T>(width, r.x, r.w, r.b, r.dy, r.y, r.dx);
    const int threads = row_threads<T>(width);
    launch(kernel, call.rows(), threads, size_t(threads / kWarp) * sizeof(float), call.raw.stream, r);
  }
  void add_weight_gradients(const dse::Call<op>& call, const NormRows<T>& r) const {
    const int64_t parts = blocks_of(call.rows(), kRowsOfPart);
    auto* const sums = static_cast<float*>(call.raw.workspace);
    launch(norm_weight_parts<T>, dim3(unsigned(parts), unsigned(blocks_of(width, 128))), 128, 0, call.raw.stream, r,
           call.rows(), sums);
    add_parts({sums, parts, 2 * width, width}, call.output("dw"), call.raw.stream);
    if constexpr (layer) add_parts({sums + width, parts, 2 * width, width}, call.output("db"), call.raw.stream);
  }

  int64_t width;
  float eps, shift;
};

}  // namespace

void add_norms(std::deque<dse::Item>& items) {
  add_both<Norm, Op::rms_norm>(items, DSE_BOTH("rms_norm"));
  add_both<Norm, Op::rms_norm_backward>(items, DSE_BOTH("rms_norm_backward"));
  add_both<Norm, Op::rms_norm_weight_backward>(items, DSE_BOTH("rms_norm_weight_backward"));
  add_both<Norm, Op::layer_norm>(items, DSE_BOTH("layer_norm"));
  add_both<Norm, Op::layer_norm_backward>(items, DSE_BOTH("layer_norm_backward"));
  add_both<Norm, Op::layer_norm_weight_backward>(items, DSE_BOTH("layer_norm_weight_backward"));
}

}  // namespace gpu
