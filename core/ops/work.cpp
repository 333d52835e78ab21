#include "ops/work.h"

#include <algorithm>

namespace dsengine {

using dse::Op;

namespace {

// Of a cached attention's call.
double sequences_of(Op op, at::ArrayRef<at::Tensor> inputs) {
  return double(inputs[op == Op::cached_step ? 4 : 3].size(0));
}

// Keys that a query sees at most.
double seen_keys(const Operation& o, at::ArrayRef<int64_t> integers) {
  const double longest = integers.empty() ? 0 : double(integers[0]);
  return o.scores.window > 0 ? std::min(longest, double(o.scores.window)) : longest;
}

// Multiplications and additions. A causal query sees half the keys of a sequence that begins with it, and from a cache
// what is before it too.
double operations_of(const Operation& o, double rows, at::ArrayRef<at::Tensor> inputs, at::ArrayRef<int64_t> integers) {
  const double matrix = 2 * rows * double(o.in) * double(o.out);
  const auto attention = [&] { return 4 * rows * double(o.heads) * double(o.head_dim) * seen_keys(o, integers); };
  switch (o.op) {
    case Op::linear:
    case Op::linear_backward:
    case Op::linear_weight_backward:
    case Op::packed_linear:
    case Op::linear_activation:
    case Op::log_prob:
      return matrix;
    case Op::linear_gated_activation:
      return 2 * matrix;
    case Op::log_prob_backward:
      return 3 * matrix;  // the logits once more, and both gradients
    case Op::attention:
      return attention() / 2;
    case Op::attention_backward:
      return 2.5 * attention() / 2;  // five products where forward has two
    case Op::cached_step:
    case Op::cached_attention: {
      const double sequences = std::max(1.0, sequences_of(o.op, inputs));
      const double seen = seen_keys(o, integers), own = std::min(rows / sequences, seen);
      return attention() * (1 - own / 2 / std::max(1.0, seen));
    }
    default:
      return 0;
  }
}

double bytes_of(const Operation& o, double rows, at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs,
                at::ArrayRef<int64_t> integers) {
  const auto size = double(c10::elementSize(o.dtype));
  const double token = size * double(o.kv_heads) * double(o.head_dim);
  // Of a cache what is read of it or written to it, not all that it has room for.
  if (o.op == Op::cache_write) return 4 * rows * token;
  if (o.op == Op::cached_attention || o.op == Op::cached_step)
    return 2 * sequences_of(o.op, inputs) * seen_keys(o, integers) * token +
           2 * rows * size * double(o.heads) * double(o.head_dim);
  if (o.op == Op::embedding) return 2 * rows * size * double(o.out);
  if (o.op == Op::embedding_weight_backward) return 3 * rows * size * double(o.out);
  double bytes = 0;
  for (const auto* tensors : {&inputs, &outputs})
    for (const auto& tensor : *tensors)
      if (tensor.defined()) bytes += double(tensor.numel() * tensor.element_size());
  // What is changed in place is read too.
  if (o.op == Op::adamw) bytes += 3 * double(outputs[0].numel()) * size;
  if (o.op == Op::linear_weight_backward && outputs[0].defined())
    bytes += double(outputs[0].numel() * outputs[0].element_size());
  return bytes;
}

}  // namespace

double least_seconds(const Operation& o, int64_t rows, at::ArrayRef<at::Tensor> inputs,
                     at::ArrayRef<at::Tensor> outputs, at::ArrayRef<int64_t> integers, const MachineRates& rates) {
  const double rate = o.dtype == at::kBFloat16 && rates.bf16_gflops > 0 ? rates.bf16_gflops : rates.product_gflops;
  const double multiplying = operations_of(o, double(rows), inputs, integers) / 1e9 / rate;
  return std::max(multiplying, bytes_of(o, double(rows), inputs, outputs, integers) / 1e9 / rates.read_gb_per_s);
}

}  // namespace dsengine
