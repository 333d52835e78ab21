#include <ATen/ATen.h>

#include "ops/reference/reference.h"

namespace dsengine::reference {

using at::Tensor;

namespace {

constexpr int64_t kSide = 32;  // outputs of a panel, inputs of a block
constexpr int64_t kBlockBytes = kSide * kSide + kSide * 2;

int64_t parts(int64_t count) { return (count + kSide - 1) / kSide; }
Tensor bytes_of(const Tensor& t) { return t.contiguous().view(at::kByte); }

}  // namespace

int64_t packed_bytes(int64_t in, int64_t out, Packing packing) {
  return parts(out) * (packing == Packing::int8 ? parts(in) * kBlockBytes : in * kSide * 2);
}

Tensor pack_weights(const Tensor& w, Packing packing) {
  const int64_t panels = parts(w.size(0)), blocks = parts(w.size(1));
  const bool int8 = packing == Packing::int8;
  Tensor whole = at::zeros({panels * kSide, int8 ? blocks * kSide : w.size(1)}, w.options().dtype(at::kFloat));
  whole.narrow(0, 0, w.size(0)).narrow(1, 0, w.size(1)).copy_(w);
  if (!int8) return bytes_of(whole.view({panels, kSide, -1}).transpose(1, 2).to(at::kBFloat16)).flatten();
  const Tensor block = whole.view({panels, kSide, blocks, kSide}).permute({0, 2, 3, 1});
  const Tensor scale = (block.abs().amax(2) / 127).clamp_max_(65504).to(at::kHalf);
  const Tensor by = scale.to(at::kFloat).unsqueeze(2);
  const Tensor q = at::where(by == 0, 0, at::round(block / by).clamp_(-127, 127)).to(at::kChar);
  return at::cat({bytes_of(q).flatten(2), bytes_of(scale)}, 2).flatten();
}

Tensor unpacked_weights(const Tensor& packed, int64_t in, int64_t out, Packing packing) {
  const int64_t panels = parts(out);
  Tensor w;  // [panels, inputs, outputs of a panel]
  if (packing == Packing::bf16) {
    w = packed.view({panels, in, kSide * 2}).view(at::kBFloat16).to(at::kFloat);
  } else {
    const Tensor block = packed.view({panels, parts(in), kBlockBytes});
    const Tensor q = block.narrow(2, 0, kSide * kSide).contiguous().view(at::kChar).to(at::kFloat);
    const Tensor scale = block.narrow(2, kSide * kSide, kSide * 2).contiguous().view(at::kHalf).to(at::kFloat);
    w = (q.view({panels, parts(in), kSide, kSide}) * scale.unsqueeze(2)).flatten(1, 2);
  }
  return w.transpose(1, 2).reshape({panels * kSide, -1}).narrow(0, 0, out).narrow(1, 0, in).contiguous();
}

}  // namespace dsengine::reference
