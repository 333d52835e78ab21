// Rows of numbers as codes of few bits and a scale for each block of a row: 8-bit moments (base/dynamic_code.h) and NF4
// (base/nf4.h). Where no kernel does it, the host does.
//
//   const RowCodes codes(kernels, RowCode::dynamic_signed, at::kFloat);
//   codes.encode(x_NW, bytes, scales);          // uint8 [N, row_bytes(W)], float32 [N, blocks_of(W)]
//   codes.decode(bytes, scales, y_NW);
//
// Dense tensors of one device. Of a NF4 row only the way back is a kernel's: it is encoded once.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/kernels.h"

namespace dsengine::ops {

enum class RowCode { dynamic_signed, dynamic_unsigned, nf4 };

class RowCodes {
 public:
  // dtype: of x and y.
  RowCodes(const Kernels& kernels, RowCode code, at::ScalarType dtype);
  void encode(const at::Tensor& x, at::Tensor codes, at::Tensor scales) const;
  void decode(const at::Tensor& codes, const at::Tensor& scales, at::Tensor y) const;

  static int64_t row_bytes(RowCode code, int64_t width);
  static int64_t block_of(RowCode code);
  static int64_t blocks_of(RowCode code, int64_t width) { return (width + block_of(code) - 1) / block_of(code); }

 private:
  RowCode code_;
  BoundKernel encode_, decode_;
  at::Tensor values_;  // on the device, where a kernel reads them
};

}  // namespace dsengine::ops
