#include <ATen/ATen.h>

#include "ops/ops.h"
#include "ops/reference/reference.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

PackedLinear::PackedLinear(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t out, Packing packing)
    : in_(in), out_(out), packing_(packing) {
  const Operation o{.op = Op::packed_linear, .dtype = dtype, .in = in, .out = out, .packing = packing};
  pack_ = kernels.bind(o.as(Op::pack_weights));
  forward_ = kernels.bind(o);
}

Tensor PackedLinear::pack(const Tensor& w) const {
  if (!pack_) return reference::pack_weights(w, packing_);
  Tensor packed = at::empty({reference::packed_bytes(in_, out_, packing_)}, w.options().dtype(at::kByte));
  pack_.run({w}, {packed}, out_);
  return packed;
}

Tensor PackedLinear::forward(const Tensor& x, const Tensor& packed, const Tensor& b, const Tensor& residual) const {
  if (!forward_)
    return reference::linear(x, reference::unpacked_weights(packed, in_, out_, packing_).to(x.scalar_type()), b,
                             residual);
  Tensor y = x.new_empty({x.size(0), out_});
  forward_.run({x.contiguous(), packed, b, residual}, {y}, x.size(0));
  return y;
}

}  // namespace dsengine::ops
