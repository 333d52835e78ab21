#include "ops/verify_cases.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "ops/ops.h"
#include "ops/row_codes.h"
#include "ops/wide.h"

namespace dsengine {

namespace {

using at::Tensor;
using dse::Op;
using Tensors = std::vector<Tensor>;
using Case = KernelCase;
using Run = KernelCase::Run;
using ops::widened;

Tensor numbers(at::IntArrayRef sizes) { return at::randn(sizes, at::TensorOptions().dtype(at::kDouble)); }

class Cases {
 public:
  Cases(Op op, at::ScalarType dtype) : op_(op), dtype_(dtype) {}

  std::vector<Case> all() {
    if (op_ >= Op::attention && op_ <= Op::cached_attention) {
      attention();
    } else if (op_ == Op::cached_step) {
      step();
    } else {
      for (const int64_t rows : {0, 1, 3, 17, 64})
        for (const int64_t width : {8, 24, 33, 64}) row_wise(rows, width);
      row_wise(2000, 24);  // enough for several threads
      row_wise(37, 517);   // and for several blocks of a product
    }
    return std::move(cases_);
  }

 private:
  Operation operation(int64_t in, int64_t out) const { return {.op = op_, .dtype = dtype_, .in = in, .out = out}; }

  // `row_inputs`: which inputs have rows; none given: the outputs are sums over rows, not rows.
  void add(std::string shape, Operation operation, int64_t rows, Tensors inputs, const Run& run,
           const std::vector<bool>& row_inputs = {}) {
    Case c{std::move(shape), std::move(operation), std::move(inputs), run, {}};
    for (const int64_t count : {int64_t{1}, int64_t{3}, rows - 1})
      for (const int64_t first : {int64_t{0}, rows - count})
        if (!row_inputs.empty() && count > 0 && count < rows)
          c.alone.push_back({first, count, [=](const Kernels& kernels, const Tensors& all) {
                               Tensors some = all;
                               for (size_t i = 0; i < all.size(); ++i)
                                 if (row_inputs[i]) some[i] = all[i].narrow(0, first, count).clone();
                               return run(kernels, some);
                             }});
    cases_.push_back(std::move(c));
  }

  void row_wise(int64_t rows, int64_t width);
  void linear(const std::string& shape, int64_t rows, int64_t width);
  void norm(const std::string& shape, int64_t rows, int64_t width);
  void activation(const std::string& shape, int64_t rows, int64_t width);
  void rope(const std::string& shape, int64_t rows, int64_t width);
  void head(const std::string& shape, int64_t rows, int64_t width);
  void logits(const std::string& shape, const Operation& o, int64_t rows);
  void packed(const std::string& shape, int64_t rows, int64_t width);
  void optimizer(const std::string& shape, int64_t count);
  void rounding(const std::string& shape, int64_t count);
  void codes(const std::string& shape, int64_t rows, int64_t width);
  void activated(const std::string& shape, int64_t rows, int64_t width);
  void attention();
  void step();

  Op op_;
  at::ScalarType dtype_;
  std::vector<Case> cases_;
};

void Cases::row_wise(int64_t rows, int64_t width) {
  const std::string shape = fmt::format("{} rows of width {}", rows, width);
  if (op_ <= Op::embedding_weight_backward)
    linear(shape, rows, width);
  else if (op_ <= Op::layer_norm_weight_backward)
    norm(shape, rows, width);
  else if (op_ <= Op::gated_activation_backward)
    activation(shape, rows, width);
  else if (op_ <= Op::rope_backward)
    rope(shape, rows, width);
  else if (op_ == Op::pack_weights || op_ == Op::packed_linear)
    packed(shape, rows, width);
  else if (op_ == Op::stochastic_round)
    rounding(shape, rows * width * 3);
  else if (op_ == Op::encode_rows || op_ == Op::decode_rows)
    codes(shape, rows, width);
  else if (op_ == Op::linear_activation || op_ == Op::linear_gated_activation)
    activated(shape, rows, width);
  else if (op_ <= Op::log_prob_backward || op_ >= Op::logit_sums)
    head(shape, rows, width);
  else
    optimizer(shape, rows * width * 20);  // up to more than one block of any size
}

void Cases::linear(const std::string& shape, int64_t rows, int64_t width) {
  const int64_t out = width > 500 ? 101 : width % 8 == 0 ? 32 : 19, vocabulary = 11;
  const Tensor x = numbers({rows, width}), w = numbers({out, width}), dy = numbers({rows, out});
  const auto make = [=](const Kernels& k, at::ScalarType type) { return ops::Linear(k, type, width, out); };
  const auto table = [=](const Kernels& k, at::ScalarType type) { return ops::Embedding(k, type, vocabulary, width); };
  const Tensor ids = at::randint(vocabulary, {rows}, at::kLong), row = numbers({rows, width});
  switch (op_) {
    case Op::linear:
      add(shape, operation(width, out), rows, {x, w},
          [=](const Kernels& k, const Tensors& in) {
            return Tensors{make(k, in[0].scalar_type()).forward(in[0], in[1])};
          },
          {true, false});
      add(shape + ", bias", operation(width, out), rows, {x, w, numbers({out})},
          [=](const Kernels& k, const Tensors& in) {
            return Tensors{make(k, in[0].scalar_type()).forward(in[0], in[1], in[2])};
          },
          {true, false, false});
      add(shape + ", bias and residual", operation(width, out), rows, {x, w, numbers({out}), numbers({rows, out})},
          [=](const Kernels& k, const Tensors& in) {
            return Tensors{make(k, in[0].scalar_type()).forward(in[0], in[1], in[2], in[3])};
          },
          {true, false, false, true});
      break;
    case Op::linear_backward:
      add(shape, operation(width, out), rows, {dy, w},
          [=](const Kernels& k, const Tensors& in) {
            return Tensors{make(k, in[0].scalar_type()).backward(in[0], in[1])};
          },
          {true, false});
      break;
    case Op::linear_weight_backward:
      add(shape, operation(width, out), rows, {dy, x, w, numbers({out})}, [=](const Kernels& k, const Tensors& in) {
        const Tensor dw = in[2].clone(), db = in[3].clone();
        make(k, in[0].scalar_type()).weight_backward(in[0], in[1], dw, db);
        return Tensors{dw, db};
      });
      break;
    case Op::embedding:
      add(shape, operation(vocabulary, width), rows, {numbers({vocabulary, width}), ids},
          [=](const Kernels& k, const Tensors& in) {
            return Tensors{table(k, in[0].scalar_type()).forward(in[0], in[1])};
          },
          {false, true});
      break;
    default:
      add(shape, operation(vocabulary, width), rows, {row, ids, numbers({vocabulary, width})},
          [=](const Kernels& k, const Tensors& in) {
            const Tensor d = in[2].clone();
            table(k, in[0].scalar_type()).weight_backward(in[0], in[1], d);
            return Tensors{d};
          });
  }
}

void Cases::norm(const std::string& shape, int64_t rows, int64_t width) {
  const double eps = 0.5;  // which counts
  Tensor x = numbers({rows, width}) * 2 + 0.3;
  if (rows > 2) x[1].zero_();
  const Tensor w = numbers({width}), b = numbers({width});
  const Tensor dy = numbers({rows, width}), mean = x.mean(1);
  const auto spread = [&](const Tensor& centred) { return (centred.square().mean(1) + eps).rsqrt(); };
  for (const double shift : {0.0, 1.0}) {
    Operation o = operation(width, width);
    o.eps = eps, o.shift = shift;
    const auto rms = [=](const Kernels& k, at::ScalarType type) { return ops::RmsNorm(k, type, width, eps, shift); };
    if (op_ == Op::rms_norm)
      add(shape, o, rows, {x, w},
          [=](const Kernels& k, const Tensors& in) {
            const auto r = rms(k, in[0].scalar_type()).forward(in[0], in[1]);
            return Tensors{r.y, r.rstd};
          },
          {true, false});
    else if (op_ == Op::rms_norm_backward)
      add(shape, o, rows, {dy, x, w, spread(x)},
          [=](const Kernels& k, const Tensors& in) {
            return Tensors{rms(k, in[0].scalar_type()).backward(in[0], in[1], in[2], widened(in[3]))};
          },
          {true, true, false, true});
    else if (op_ == Op::rms_norm_weight_backward)
      add(shape, o, rows, {dy, x, spread(x), w}, [=](const Kernels& k, const Tensors& in) {
        const Tensor dw = in[3].clone();
        rms(k, in[0].scalar_type()).weight_backward(in[0], in[1], widened(in[2]), dw);
        return Tensors{dw};
      });
  }
  Operation o = operation(width, width);
  o.eps = eps;
  const Tensor rstd = spread(x - mean.unsqueeze(1));
  const auto layer = [=](const Kernels& k, at::ScalarType type) { return ops::LayerNorm(k, type, width, eps); };
  if (op_ == Op::layer_norm)
    add(shape, o, rows, {x, w, b},
        [=](const Kernels& k, const Tensors& in) {
          const auto r = layer(k, in[0].scalar_type()).forward(in[0], in[1], in[2]);
          return Tensors{r.y, r.mean, r.rstd};
        },
        {true, false, false});
  else if (op_ == Op::layer_norm_backward)
    add(shape, o, rows, {dy, x, w, mean, rstd},
        [=](const Kernels& k, const Tensors& in) {
          const ops::LayerNorm norm = layer(k, in[0].scalar_type());
          return Tensors{norm.backward(in[0], in[1], in[2], widened(in[3]), widened(in[4]))};
        },
        {true, true, false, true, true});
  else if (op_ == Op::layer_norm_weight_backward)
    add(shape, o, rows, {dy, x, mean, rstd, w, b}, [=](const Kernels& k, const Tensors& in) {
      const Tensor dw = in[4].clone(), db = in[5].clone();
      layer(k, in[0].scalar_type()).weight_backward(in[0], in[1], widened(in[2]), widened(in[3]), dw, db);
      return Tensors{dw, db};
    });
}

void Cases::activation(const std::string& shape, int64_t rows, int64_t width) {
  const bool gated = op_ >= Op::gated_activation;
  const Tensor x = numbers({rows, gated ? 2 * width : width}) * 3, dy = numbers({rows, width});
  for (const auto which : {Activation::silu, Activation::relu, Activation::gelu, Activation::gelu_tanh}) {
    Operation o = operation(x.size(1), width);
    o.activation = which;
    const Run run = [=, op = op_](const Kernels& k, const Tensors& in) {
      const auto type = in[0].scalar_type();
      const ops::Activate plain(k, type, width, which);
      const ops::GatedActivate with_gate(k, type, width, which);
      switch (op) {
        case Op::activation:
          return Tensors{plain.forward(in[0])};
        case Op::activation_backward:
          return Tensors{plain.backward(in[1], in[0])};
        case Op::gated_activation:
          return Tensors{with_gate.forward(in[0])};
        default:
          return Tensors{with_gate.backward(in[1], in[0])};
      }
    };
    add(fmt::format("{}, activation {}", shape, int(which)), o, rows, {x, dy}, run, {true, true});
  }
}

void Cases::rope(const std::string& shape, int64_t rows, int64_t width) {
  const int64_t heads = 4, turned = 3;
  const Tensor x = numbers({rows, heads, width}), positions = at::randint(200, {rows}, at::kLong);
  const Tensor lengths = positions + at::randint(1, 9, {rows}, at::kLong);
  for (const bool longer : {false, true}) {
    RopeSpec rope{.frequencies = {}, .long_frequencies = {}, .long_after = longer ? 100 : 0, .amplitude = 1.1f};
    for (int64_t i = 0; i < width / 2 - 1; ++i) {  // two dimensions or more are only copied
      rope.frequencies.push_back(float(std::pow(30.0, -double(i) / double(width))));
      if (longer) rope.long_frequencies.push_back(rope.frequencies.back() / 7);
    }
    Operation o = operation(0, 0);
    o.heads = heads, o.head_dim = width, o.rope = rope;
    const Run run = [=, op = op_](const Kernels& k, const Tensors& in) {
      const auto type = in[0].scalar_type();
      const ops::Rope turn(k, type, heads, turned, width, rope);
      return Tensors{op == Op::rope ? turn.forward(in[0], in[1], in[2]) : turn.backward(in[0], in[1], in[2])};
    };
    add(shape + (longer ? ", two tables" : ""), o, rows, {x, positions, lengths}, run, {true, true, true});
  }
}

void Cases::head(const std::string& shape, int64_t rows, int64_t width) {
  const int64_t vocabulary = width > 500 ? 700 : width % 8 == 0 ? 64 : 61;  // up to several tiles of any size
  const Tensor x = numbers({rows, width}), small = numbers({vocabulary, width}) / 3;
  const Tensor targets = at::randint(vocabulary, {rows}, at::kLong), d_logp = numbers({rows}),
               d_entropy = numbers({rows});
  for (const double softcap : {0.0, 2.0}) {
    // Logits around a hundred; of slopes, which magnify their rounding, a few.
    const Tensor head = softcap > 0 ? small : small * (op_ == Op::log_prob_backward ? 1 : 20);
    Operation o = operation(op_ >= Op::logit_sums ? 0 : width, vocabulary);
    o.softcap = softcap;
    if (op_ == Op::softcap && softcap == 0) continue;
    const auto make = [=](const Kernels& k, const Tensors& in) {
      return ops::LogProb(k, in[0].scalar_type(), width, vocabulary, softcap);
    };
    if (op_ >= Op::logit_sums) {
      logits(fmt::format("{}, softcap {}", shape, softcap), o, rows);
      continue;
    }
    for (const bool entropy : {false, true}) {
      const std::string name = fmt::format("{}, softcap {}{}", shape, softcap, entropy ? ", entropy" : "");
      if (op_ == Op::log_prob) {
        const Run run = [=](const Kernels& k, const Tensors& in) {
          const auto r = make(k, in).forward(in[0], in[1], in[2], 1.3, entropy);
          return entropy ? Tensors{r.logp, r.lse, r.entropy} : Tensors{r.logp, r.lse};
        };
        add(name, o, rows, {x, head, targets}, run, {true, false, true});
        continue;
      }
      const auto r =
          ops::LogProb(Kernels(), at::kDouble, width, vocabulary, softcap).forward(x, head, targets, 1.3, true);
      const auto backward = [=](const Kernels& k, const Tensors& in, const Tensor& dhead) {
        const auto column = [&](size_t i) { return widened(in[i]); };
        return make(k, in).backward(column(5), entropy ? column(6) : Tensor(), in[0], in[1], in[2],
                                    {{}, column(3), entropy ? column(4) : Tensor()}, 1.3, dhead);
      };
      const Tensors inputs{x, head, targets, r.lse, r.entropy, d_logp, d_entropy};
      add(name, o, rows, inputs, [=](const Kernels& k, const Tensors& in) {
        const Tensor dhead = in[1].clone();
        const Tensor dx = backward(k, in, dhead);
        return Tensors{dx, dhead};
      });
      const Run of_input = [=](const Kernels& k, const Tensors& in) { return Tensors{backward(k, in, {})}; };
      add(name + ", the head frozen", o, rows, inputs, of_input, {true, false, true, true, true, true, true});
    }
  }
}

void Cases::logits(const std::string& shape, const Operation& o, int64_t rows) {
  const Tensor z = numbers({rows, o.out}) * 30, temperatures = at::rand({rows}, at::kDouble) + 0.5;
  const Tensor targets = at::randint(o.out, {rows}, at::kLong), draws = at::rand({rows}, at::kDouble) * 1.2 - 0.2;
  for (const bool mean : {false, true})
    add(shape + (mean ? ", mean" : ""), o, rows, {z, temperatures, targets, draws},
        [=, op = op_](const Kernels& k, const Tensors& in) {
          const ops::LogProb head(k, in[0].scalar_type(), 0, o.out, o.softcap);
          if (op == Op::softcap) return Tensors{head.capped(in[0].clone())};
          if (op == Op::draw) {
            const auto r = head.draw(in[0], in[1], in[3].to(at::kDouble));
            return Tensors{r.tokens, r.sums.lse, r.sums.target_logit};
          }
          const auto r = head.sums(in[0], in[1], in[2], mean);
          return mean ? Tensors{r.lse, r.target_logit, r.mean_logit} : Tensors{r.lse, r.target_logit};
        },
        {true, true, true, true});
}

void Cases::packed(const std::string& shape, int64_t rows, int64_t width) {
  const int64_t out = width > 500 ? 101 : width % 8 == 0 ? 32 : 19;
  const Tensor x = numbers({rows, width}), w = numbers({out, width}), b = numbers({out}), more = numbers({rows, out});
  w[0].zero_();
  for (const auto packing : {Packing::bf16, Packing::int8}) {
    const std::string name = fmt::format("{}, {}", shape, packing == Packing::bf16 ? "bf16" : "int8");
    Operation o = operation(width, out);
    o.packing = packing;
    const auto make = [=](const Kernels& k, const Tensors& in) {
      return ops::PackedLinear(k, in[0].scalar_type(), width, out, packing);
    };
    if (op_ == Op::pack_weights) {
      if (rows == 1)
        add(name, o, out, {w},
            [=](const Kernels& k, const Tensors& in) { return Tensors{make(k, in).pack(in[0].contiguous())}; });
      continue;
    }
    add(name, o, rows, {x, w, b, more},
        [=](const Kernels& k, const Tensors& in) {
          const Tensor bytes = make(Kernels(), in).pack(in[1]);
          const auto linear = make(k, in);
          return Tensors{linear.forward(in[0], bytes), linear.forward(in[0], bytes, in[2], in[3])};
        },
        {true, false, false, true});
  }
}

void Cases::optimizer(const std::string& shape, int64_t count) {
  const Tensor g = numbers({count}), w = numbers({count}), m = numbers({count}) / 10, v = numbers({count}).square();
  for (const auto& t : {g, m, v}) t.narrow(0, 0, count / 4).zero_();  // as padding has it: epsilon alone divides
  if (op_ == Op::sum_of_squares)
    add(shape, operation(0, 0), count, {g}, [](const Kernels& k, const Tensors& in) {
      return Tensors{at::scalar_tensor(ops::SumOfSquares(k)(in[0]), at::kDouble).reshape({1})};
    });
  else
    add(shape, operation(0, 0), count, {g, w, m, v}, [count](const Kernels& k, const Tensors& in) {
      const Tensor w = in[1].clone(), m = in[2].clone(), v = in[3].clone();
      ops::AdamWUpdate{k}(in[0], w, m, v,
                          {.clip = 0.7,
                           .beta1 = 0.9,
                           .beta2 = 0.95,
                           .step_size = 0.02,
                           .keep = 0.99,
                           .root2 = 0.8,
                           .epsilon = 1e-2,
                           .decayed = count / 3});
      return Tensors{w, m, v};
    });
}

void Cases::activated(const std::string& shape, int64_t rows, int64_t width) {
  const bool gated = op_ == Op::linear_gated_activation;
  const int64_t out = width > 500 ? 104 : width % 8 == 0 ? 72 : 19, all = gated ? 2 * out : out;
  const Tensor x = numbers({rows, width}), w = numbers({all, width}) / 3, b = numbers({all});
  for (const auto which : {Activation::silu, Activation::relu, Activation::gelu, Activation::gelu_tanh}) {
    Operation o = operation(width, out);
    o.activation = which;
    const auto run = [=](const Kernels& k, const Tensors& in) {
      const auto type = in[0].scalar_type();
      const auto of = [&](const Tensor& bias) {
        if (const ops::LinearActivate whole(k, type, width, out, which, gated); whole)
          return whole.forward(in[0], in[1], bias);
        const Tensor z = ops::Linear(k, type, width, all).forward(in[0], in[1], bias);
        return gated ? ops::GatedActivate(k, type, out, which).forward(z)
                     : ops::Activate(k, type, out, which).forward(z);
      };
      return Tensors{of(in[2]), of({})};
    };
    add(fmt::format("{}, activation {}", shape, int(which)), o, rows, {x, w, b}, run, {true, false, false});
  }
}

// Of numbers between two that bfloat16 has. Draws of a place and a stream have the same bits whatever is rounded with
// them.
void Cases::rounding(const std::string& shape, int64_t count) {
  for (const int64_t first : {0, 13})
    for (const uint64_t stream : {0, 1}) {
      const auto rounded = [=](const Kernels& k, const Tensors& in) {
        const Tensor x = in[0].to(at::kFloat) * (1 + 0x1p-9) + in[1].to(at::kFloat) * 0x1p-12;
        Tensor y = at::empty(x.sizes(), x.options().dtype(at::kBFloat16));
        ops::StochasticRound{k}(x, y, first, {Philox(5, Purpose::update, 7, 9), stream});
        return Tensors{y.to(in[0].scalar_type()), (y.to(at::kFloat) > x).to(in[0].scalar_type())};
      };
      add(fmt::format("{}, from {} of stream {}", shape, first, stream), operation(0, 0), count,
          {numbers({count}), numbers({count})}, rounded);
    }
}

// The way there, or back from what the reference made.
void Cases::codes(const std::string& shape, int64_t rows, int64_t width) {
  using ops::RowCode, ops::RowCodes;
  const Tensor x = numbers({rows, width}) * numbers({rows, width}).square();  // small ones too
  if (rows > 1) x[1].zero_();
  const std::pair<RowCode, const char*> kinds[] = {
      {RowCode::dynamic_signed, "signed"}, {RowCode::dynamic_unsigned, "unsigned"}, {RowCode::nf4, "nf4"}};
  for (const auto& [code, name] : kinds) {
    const bool encodes = op_ == Op::encode_rows;
    if (encodes && code == RowCode::nf4) continue;
    const auto run = [=, code = code](const Kernels& k, const Tensors& in) {
      const at::ScalarType type = in[0].scalar_type() == at::kDouble ? at::kFloat : in[0].scalar_type();
      const Tensor from = in[0].to(at::kFloat);
      const Tensor bytes = at::empty({from.size(0), RowCodes::row_bytes(code, width)}, from.options().dtype(at::kByte));
      const Tensor scales = at::empty({from.size(0), RowCodes::blocks_of(code, width)}, from.options());
      const Kernels reference;
      RowCodes(encodes ? k : reference, code, at::kFloat).encode(from, bytes, scales);
      if (encodes) return Tensors{bytes.to(at::kFloat), scales};
      const Tensor y = at::empty(from.sizes(), from.options().dtype(type));
      RowCodes(k, code, type).decode(bytes, scales, y);
      return Tensors{y};
    };
    add(fmt::format("{}, {}", shape, name), operation(0, 0), rows, {code == RowCode::dynamic_unsigned ? x.abs() : x},
        run, {true});
  }
}

// Sequences of these lengths after these pasts, in a cache of blocks of 4 in no order. shared: how many of its first
// blocks a sequence has of the one before it; empty: none.
struct Ragged {
  std::vector<int64_t> lengths, past, shared{};
  Batch batch(const Device& device) const {
    std::vector<std::vector<int32_t>> tokens;
    for (const auto n : lengths) tokens.emplace_back(size_t(n), 0);
    return pack(device, {tokens.begin(), tokens.end()}, past);
  }
  Ragged alone(size_t b) const { return {{lengths[b]}, {past[b]}, {}}; }
};

// `count` sequences of one new token each, of which the first has `past` keys behind it, the next one more, and so on.
// The first shares `before` blocks with the sequence before it, the others `shared`.
struct Samples {
  int64_t count, past, before, shared;
};
Ragged samples(const std::vector<Samples>& of) {
  Ragged all;
  for (const auto& [count, past, before, shared] : of)
    for (int64_t i = 0; i < count; ++i) {
      all.lengths.push_back(1), all.past.push_back(past + i);
      all.shared.push_back(i == 0 ? before : shared);
    }
  return all;
}

constexpr int64_t kBlockSize = 4, kBlocks = 160;

ops::CachePlaces places_of(const Device& device, const Batch& batch, const std::vector<int64_t>& shared) {
  const int64_t most = std::max<int64_t>(1, (batch.longest + kBlockSize - 1) / kBlockSize);
  std::vector<int64_t> blocks, counts, rows;
  for (int64_t b = 0, next = 0; b < batch.sequences(); ++b) {
    const int64_t fresh = batch.offsets[size_t(b) + 1] - batch.offsets[size_t(b)], past = batch.past[size_t(b)];
    const int64_t of_before = shared.empty() ? 0 : shared[size_t(b)];
    counts.push_back(past + fresh);
    for (int64_t i = 0; i < most; ++i)
      if (i < of_before)
        blocks.push_back(blocks[blocks.size() - size_t(most)]);
      else
        blocks.push_back(i * kBlockSize < past + fresh ? (7 * next++) % kBlocks : 0);
    for (int64_t j = past; j < past + fresh; ++j)
      rows.push_back(blocks[size_t(b * most + j / kBlockSize)] * kBlockSize + j % kBlockSize);
  }
  return {kBlockSize, device.upload(blocks).view({-1, most}), device.upload(counts), device.upload(rows)};
}

struct Heads {
  int64_t heads, kv_heads, width;
  AttentionScores scores;
};

// The places of one sequence, or of all.
ops::CachePlaces places_of(const ops::CachePlaces& all, const Batch& batch, std::optional<size_t> only) {
  if (!only) return all;
  const int64_t b = int64_t(*only), first = batch.offsets[*only], count = batch.offsets[*only + 1] - first;
  return {all.block_size, all.blocks.narrow(0, b, 1), all.key_counts.narrow(0, b, 1), all.rows.narrow(0, first, count)};
}

// A cache with numbers where the sequences have keys, and none anywhere else, as fresh memory has it.
Tensor with_keys_alone(const Tensor& cache, const ops::CachePlaces& places) {
  const Tensor flat = cache.flatten(0, 1), bare = at::full_like(flat, NAN);
  for (int64_t b = 0; b < places.key_counts.size(0); ++b)
    for (int64_t j = 0; j < places.key_counts[b].item<int64_t>(); ++j) {
      const int64_t row = places.blocks[b][j / kBlockSize].item<int64_t>() * kBlockSize + j % kBlockSize;
      bare[row].copy_(flat[row]);
    }
  return bare.view(cache.sizes());
}

// Of all sequences, or of one. Inputs: q | k | v [N, all heads, D], d_out, a cache's keys and values.
Run attention_run(Op op, const Heads& h, const Ragged& ragged, std::optional<size_t> only = {}) {
  return [op, h, ragged, only](const Kernels& kernels, const Tensors& in) {
    const Device where(in[0].device());
    const Batch all = ragged.batch(where), batch = only ? ragged.alone(*only).batch(where) : all;
    const ops::CachePlaces every = places_of(where, all, ragged.shared), places = places_of(every, all, only);
    const ops::Attention attend(kernels, in[0].scalar_type(), h.heads, h.kv_heads, h.width, h.scores);
    const Tensor q = in[0].narrow(1, 0, h.heads), k = in[0].narrow(1, h.heads, h.kv_heads);
    const Tensor v = in[0].narrow(1, h.heads + h.kv_heads, h.kv_heads);
    switch (op) {
      case Op::attention: {
        const auto r = attend.forward(q, k, v, batch, true);
        return Tensors{r.out, r.lse, attend.forward(q, k, v, batch, false).out};
      }
      case Op::attention_backward: {
        const ops::Attention truth(Kernels(), in[0].scalar_type(), h.heads, h.kv_heads, h.width, h.scores);
        const auto g = attend.backward(in[1], q, k, v, truth.forward(q, k, v, batch, true), batch);
        return Tensors{g.dq, g.dk, g.dv};
      }
      case Op::cache_write: {
        Tensor keys = in[2][0].clone(), values = in[2][1].clone();
        attend.write(k, v, places, keys, values);
        return Tensors{keys, values};
      }
      default:
        return Tensors{
            attend.cached(q, with_keys_alone(in[2][0], every), with_keys_alone(in[2][1], every), places, batch)};
    }
  };
}

void Cases::attention() {
  const bool cached = op_ == Op::cached_attention || op_ == Op::cache_write;
  // Scores beyond exp's range. Slopes magnify rounding, bfloat16's most.
  const double steep = op_ != Op::attention_backward ? 4.0 : dtype_ == at::kBFloat16 ? 0.2 : 1.0;
  std::vector<Ragged> raggeds{
      {{}, {}},    {{1}, {0}},         {{0, 3}, {0, 0}},        {{5, 1, 9, 2}, {0, 0, 0, 0}}, {{33}, {0}},
      {{70}, {0}}, {{1, 40}, {75, 0}}, {{1, 1, 1}, {6, 0, 11}}, {{3, 0, 4}, {9, 2, 0}}};
  if (cached) {  // samples of one prompt, and of two that begin alike, some behind others
    raggeds.push_back(samples({{20, 71, 0, 17}}));
    raggeds.push_back(samples({{4, 110, 0, 16}, {1, 40, 9, 0}, {7, 75, 9, 18}, {3, 66, 12, 16}}));
    raggeds.push_back({{2, 0, 5, 1, 3}, {64, 70, 66, 31, 32}, {0, 16, 16, 7, 8}});
  }
  for (const auto& ragged : raggeds)
    for (const auto& [heads, kv_heads, width, scores] :
         {Heads{4, 2, 8, {0.4, 0, 0}}, Heads{3, 1, 5, {0.4, 4, 0}}, Heads{2, 2, 33, {0.3, 0, 1.5}},
          Heads{4, 1, 64, {steep, 7, 0}}, Heads{2, 1, 16, {0.4, 3, 2.0}}, Heads{64, 1, 8, {0.4, 0, 0}},
          Heads{8, 1, 20, {0.3, 37, 0}}, Heads{3, 1, 256, {0.1, 0, 0}}, Heads{18, 2, 128, {0.1, 0, 0}},
          Heads{2, 2, 64, {0.2, 50, 30.0}}}) {
      if (!cached && std::any_of(ragged.past.begin(), ragged.past.end(), [](auto p) { return p > 0; })) continue;
      const int64_t rows = std::accumulate(ragged.lengths.begin(), ragged.lengths.end(), int64_t{0});
      Operation o = operation(0, 0);
      o.heads = heads, o.kv_heads = kv_heads, o.head_dim = width, o.scores = scores;
      // q, k, v as one product makes them: views with a stride of all heads.
      const Tensor qkv = numbers({rows, heads + 2 * kv_heads, width}), d_out = numbers({rows, heads, width});
      const Tensor cache = numbers({2, kBlocks, kBlockSize, kv_heads, width});
      Case c{fmt::format("sequences of {} after {}, {} heads on {} of {}", fmt::join(ragged.lengths, " "),
                         fmt::join(ragged.past, " "), heads, kv_heads, width),
             o,
             {qkv, d_out, cache},
             attention_run(op_, {heads, kv_heads, width, scores}, ragged),
             {}};
      for (size_t b = 0; op_ != Op::cache_write && b < ragged.lengths.size(); ++b) {  // each sequence alone
        const int64_t first =
            std::accumulate(ragged.lengths.begin(), ragged.lengths.begin() + ptrdiff_t(b), int64_t{0});
        const int64_t count = ragged.lengths[b];
        c.alone.push_back({first, count,
                           [=, run = attention_run(op_, {heads, kv_heads, width, scores}, ragged, b)](
                               const Kernels& k, const Tensors& in) {
                             return run(k, {in[0].narrow(0, first, count), in[1].narrow(0, first, count), in[2]});
                           }});
      }
      cases_.push_back(std::move(c));
    }
}

void Cases::step() {
  for (const auto& ragged : {Ragged{{}, {}}, Ragged{{1}, {0}}, Ragged{{1, 1, 1}, {6, 0, 11}},
                             samples({{20, 71, 0, 17}}), samples({{4, 110, 0, 16}, {1, 40, 9, 0}, {7, 75, 9, 18}})})
    for (const auto& [heads, kv_heads, width, scores] :
         {Heads{4, 2, 64, {0.4, 0, 0}}, Heads{3, 3, 64, {0.4, 7, 0}}, Heads{2, 1, 128, {0.3, 37, 1.5}},
          Heads{18, 2, 128, {0.1, 0, 0}}, Heads{2, 2, 24, {0.4, 0, 0}}})
      for (const int64_t pairs : {int64_t{0}, width / 2, width / 4}) {
        const auto rows = int64_t(ragged.lengths.size());
        Operation o = operation(0, 0);
        o.heads = heads, o.kv_heads = kv_heads, o.head_dim = width, o.scores = scores;
        o.rope = {
            .frequencies = {}, .long_frequencies = {}, .long_after = pairs == width / 4 ? 50 : 0, .amplitude = 1.1f};
        for (int64_t i = 0; i < pairs; ++i)
          o.rope.frequencies.push_back(float(std::pow(30.0, -double(i) / double(width))));
        if (o.rope.long_after > 0)
          for (const float f : o.rope.frequencies) o.rope.long_frequencies.push_back(f / 7);
        const Run run = [=, h = Heads{heads, kv_heads, width, scores}](const Kernels& k, const Tensors& in) {
          const Device where(in[0].device());
          const Batch batch = ragged.batch(where);
          const ops::CachePlaces places = places_of(where, batch, ragged.shared);
          Tensor keys = with_keys_alone(in[1][0], places), values = with_keys_alone(in[1][1], places);
          const auto kept = [](const Tensor& cache) { return cache.nan_to_num(0); };  // every key, new ones too
          const auto type = in[0].scalar_type();
          if (const ops::CachedStep whole(k, type, h.heads, h.kv_heads, h.width, h.scores, o.rope); whole) {
            const Tensor out = whole.forward(in[0], batch, places, keys, values);
            return Tensors{out, kept(keys), kept(values)};
          }
          const int64_t turned = h.heads + h.kv_heads;
          Tensor qkv = in[0];
          if (!o.rope.frequencies.empty())
            qkv = ops::Rope(k, type, turned + h.kv_heads, turned, h.width, o.rope)
                      .forward(qkv, batch.positions, batch.lengths);
          const ops::Attention attend(k, type, h.heads, h.kv_heads, h.width, h.scores);
          attend.write(qkv.narrow(1, h.heads, h.kv_heads), qkv.narrow(1, turned, h.kv_heads), places, keys, values);
          const Tensor out = attend.cached(qkv.narrow(1, 0, h.heads), keys, values, places, batch);
          return Tensors{out, kept(keys), kept(values)};
        };
        cases_.push_back(
            {fmt::format("a token of {} sequences after {}, {} heads on {} of {}, {} pairs turn", rows,
                         fmt::join(ragged.past, " "), heads, kv_heads, width, pairs),
             o,
             {numbers({rows, heads + 2 * kv_heads, width}), numbers({2, kBlocks, kBlockSize, kv_heads, width})},
             run,
             {}});
      }
}

}  // namespace

std::vector<KernelCase> kernel_cases(dse::Op op, at::ScalarType dtype) {
  at::manual_seed(7);
  return Cases(op, dtype).all();
}

}  // namespace dsengine
