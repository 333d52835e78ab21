#include "ops/row_codes.h"

#include <ATen/ATen.h>

#include "base/dynamic_code.h"
#include "base/nf4.h"
#include "memory/ledger.h"
#include "ops/reference/reference.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

int64_t RowCodes::row_bytes(RowCode code, int64_t width) { return code == RowCode::nf4 ? nf4::bytes_of(width) : width; }
int64_t RowCodes::block_of(RowCode code) { return code == RowCode::nf4 ? nf4::kBlock : DynamicCode::kBlock; }

RowCodes::RowCodes(const Kernels& kernels, RowCode code, at::ScalarType dtype) : code_(code) {
  if (code != RowCode::nf4) encode_ = kernels.bind({.op = Op::encode_rows, .dtype = dtype});
  decode_ = kernels.bind({.op = Op::decode_rows, .dtype = dtype});
  if (!encode_ && !decode_) return;
  const MemoryScope scope(MemoryTag::workspace);
  values_ = kernels.device().upload(reference::values_of(code));
}

void RowCodes::encode(const Tensor& x, Tensor codes, Tensor scales) const {
  if (!encode_) return reference::encode_rows(code_, x, codes, scales);
  encode_.run({x, values_}, {codes, scales}, x.size(0), {}, {x.size(1), block_of(code_)});
}

void RowCodes::decode(const Tensor& codes, const Tensor& scales, Tensor y) const {
  if (!decode_) return reference::decode_rows(code_, codes, scales, y);
  decode_.run({codes, scales, values_}, {y}, y.size(0), {}, {y.size(1), block_of(code_)});
}

}  // namespace dsengine::ops
