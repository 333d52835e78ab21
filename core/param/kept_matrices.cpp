#include "param/kept_matrices.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/nf4.h"

namespace dsengine {

template <class F>
void KeptMatrices::each_matrix(const F& f) const {
  int64_t code = 0, scale = 0;
  for (size_t b = 0; b < layout_.blocks().size(); ++b) {
    const ParamBlock& block = layout_.blocks()[b];
    if (!block.decay()) continue;
    const int64_t rows = block.rows(), width = block.row_numel();
    f(rows, width, layout_.offset_of(b), code, scale);
    code += rows * nf4::bytes_of(width), scale += rows * nf4::blocks_of(width);
  }
}

template <class F>
void KeptMatrices::each_part(const at::Tensor& matrices, const F& f) const {
  each_matrix([&](int64_t rows, int64_t width, int64_t begin, int64_t code, int64_t scale) {
    const auto part = [rows](const at::Tensor& of, int64_t first, int64_t columns) {
      return of.narrow(0, first, rows * columns).view({rows, columns});
    };
    f(part(matrices, begin, width), part(elements_, code, nf4::bytes_of(width)),
      part(scales_, scale, nf4::blocks_of(width)));
  });
}

KeptMatrices::KeptMatrices(const ParamLayout& layout, const Device& device, at::ScalarType dtype,
                           std::shared_ptr<const ops::RowCodes> codes)
    : layout_(layout), codes_(std::move(codes)) {
  if (!codes_) {
    elements_ = device.empty({layout.decayed_numel()}, dtype).zero_();
    return;
  }
  int64_t bytes = 0, scales = 0;
  each_matrix([&](int64_t rows, int64_t width, int64_t, int64_t code, int64_t scale) {
    bytes = code + rows * nf4::bytes_of(width), scales = scale + rows * nf4::blocks_of(width);
  });
  elements_ = device.empty({bytes}, at::kByte).zero_();
  scales_ = device.empty({scales}, at::kFloat).zero_();
}

void KeptMatrices::write(const at::Tensor& matrices) {
  if (matrices.is_meta()) return;
  if (!codes_) {
    elements_.copy_(matrices);
    return;
  }
  each_part(matrices,
            [&](const auto& values, const auto& codes, const auto& scales) { codes_->encode(values, codes, scales); });
}

void KeptMatrices::read(const at::Tensor& matrices) const {
  if (matrices.is_meta()) return;
  if (!codes_) {
    at::Tensor(matrices).copy_(elements_, /*non_blocking=*/true);
    return;
  }
  // Kept elsewhere, the codes cross, and are made values where these lie.
  each_part(matrices, [&](const auto& values, const auto& codes, const auto& scales) {
    const auto there = [&](const at::Tensor& part) { return part.to(values.device(), /*non_blocking=*/true); };
    codes_->decode(there(codes), there(scales), values);
  });
}

}  // namespace dsengine
