// dsengine bench ops: products alone, forward and backward, of the shapes that models have.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>

#include "app/bench.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "ops/ops.h"

namespace dsengine {

namespace {

struct OpsBench : BenchOptions {
  OpsBench() { repeats = 5; }
  std::vector<int64_t> rows, in, out;
};

struct Shape {
  int64_t rows, in, out;
  double weight_bytes() const { return 4.0 * double(in) * double(out); }
};

// A token's, a batch's, a prompt's and a minibatch's rows, by the products of a model of width 768.
std::vector<Shape> default_shapes() {
  std::vector<Shape> shapes;
  for (const auto& [in, out] : {std::pair{768, 2304}, {768, 768}, {768, 2048}, {2048, 768}, {768, 32000}})
    for (const int64_t rows : {1, 8, 16, 128, 1024}) shapes.push_back({rows, in, out});
  return shapes;
}

std::vector<Shape> shapes_of(const OpsBench& o) {
  DSE_CHECK_USER(o.rows.size() == o.in.size() && o.in.size() == o.out.size(),
                 "--rows, --in and --out make a shape together: {}, {} and {} were given", o.rows.size(), o.in.size(),
                 o.out.size());
  if (o.rows.empty()) return default_shapes();
  std::vector<Shape> shapes;
  for (size_t i = 0; i < o.rows.size(); ++i) shapes.push_back({o.rows[i], o.in[i], o.out[i]});
  return shapes;
}

// Weights in turn, so many that none is in a cache when its turn comes, as in a model.
std::vector<at::Tensor> weights_of(const Shape& shape, const at::TensorOptions& options) {
  constexpr double kBytes = 256 << 20;
  std::vector<at::Tensor> weights;
  const auto count = int64_t(std::clamp(kBytes / shape.weight_bytes(), 1.0, 64.0));
  for (int64_t i = 0; i < count; ++i) weights.push_back(at::full({shape.out, shape.in}, 0.01, options));
  return weights;
}

// Calls of some milliseconds, over the weights in turn: seconds of one, by their spread.
template <class F>
Json rates(const Shape& shape, const std::vector<at::Tensor>& weights, int64_t repeats, const F& call) {
  for (const auto& w : weights) call(w);
  std::vector<double> seconds;
  size_t next = 0;
  for (int64_t i = 0; i < repeats; ++i) {
    int64_t calls = 0;
    double spent = 0;
    for (Lap lap; calls == 0 || spent < 0.02; ++calls) call(weights[next++ % weights.size()]), spent += lap();
    seconds.push_back(spent / double(calls));
  }
  const double middle = median(seconds);
  return {{"seconds", middle},
          {"gflops", gflops_of(shape.rows, shape.in, shape.out, middle)},
          {"gb_per_s", shape.weight_bytes() / 1e9 / middle},
          {"spread", spread(seconds)}};
}

Json measure(const Kernels& kernels, const Shape& shape, int64_t repeats) {
  const at::NoGradGuard no_grad;
  const ops::Linear linear(kernels, at::kFloat, shape.in, shape.out);
  const auto options = kernels.device().options(at::kFloat);
  const at::Tensor x = at::full({shape.rows, shape.in}, 0.5, options),
                   dy = at::full({shape.rows, shape.out}, 0.5, options);
  const auto weights = weights_of(shape, options);
  return {{"rows", shape.rows},
          {"in", shape.in},
          {"out", shape.out},
          {"forward", rates(shape, weights, repeats, [&](const at::Tensor& w) { linear.forward(x, w); })},
          {"backward", rates(shape, weights, repeats, [&](const at::Tensor& w) { linear.backward(dy, w); })},
          {"weight_backward",
           rates(shape, weights, repeats, [&](const at::Tensor& w) { linear.weight_backward(dy, x, w, {}); })}};
}

int bench_ops(const OpsBench& o, const Common& common) {
  const auto shapes = shapes_of(o);
  const Bench bench("ops", o, common);
  Json table = Json::array();
  for (const auto& shape : shapes) table.push_back(measure(bench.session().kernels(), shape, o.repeats));
  return bench.print({{"shapes", table}});
}

}  // namespace

Body define_bench_ops(CLI::App& app, Common& common) {
  auto o = std::make_shared<OpsBench>();
  add_repeat_options(app, *o);
  const auto add = [&](const char* name, std::vector<int64_t>& to, const char* help) {
    app.add_option(name, to, help)->check(side_by_side())->allow_extra_args(false);
  };
  add("--rows", o->rows, "of a shape; with --in and --out, and more than once; none: a table of shapes");
  add("--in", o->in, "columns of its input");
  add("--out", o->out, "columns of its output");
  return [o, &common] { return bench_ops(*o, common); };
}

}  // namespace dsengine
