#include "param/kept_matrices.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>

#include "base/check.h"
#include "base/nf4.h"
#include "ops/threads.h"
#include "ops/wide.h"

namespace dsengine {

namespace {

constexpr int64_t kElementsAThread = 1 << 15;

// f(values, codes, scales) of each row of a matrix in NF4, which begins at these.
template <class Value, class Code, class Scale, class F>
void each_row(int64_t rows, int64_t width, Value* values, Code* codes, Scale* scales, const F& f) {
  const int64_t bytes = nf4::bytes_of(width), blocks = nf4::blocks_of(width);
  parallel_for(0, rows, std::max<int64_t>(1, kElementsAThread / width), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      f(std::span(values + r * width, size_t(width)), std::span(codes + r * bytes, size_t(bytes)),
        std::span(scales + r * blocks, size_t(blocks)));
  });
}

}  // namespace

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

KeptMatrices::KeptMatrices(const ParamLayout& layout, FrozenFormat format, const Device& device)
    : layout_(layout), format_(format) {
  if (format == FrozenFormat::fp32) {
    elements_ = device.empty({layout.decayed_numel()}, at::kFloat).zero_();
    return;
  }
  int64_t codes = 0, scales = 0;
  each_matrix([&](int64_t rows, int64_t width, int64_t, int64_t code, int64_t scale) {
    codes = code + rows * nf4::bytes_of(width), scales = scale + rows * nf4::blocks_of(width);
  });
  elements_ = device.empty({codes}, at::kByte).zero_();
  scales_ = device.empty({scales}, at::kFloat).zero_();
}

void KeptMatrices::write(const at::Tensor& matrices) {
  if (matrices.is_meta()) return;
  if (format_ == FrozenFormat::fp32) {
    elements_.copy_(matrices);
    return;
  }
  const at::Tensor matrices_here = on_host(ops::widened(matrices));
  edit_on_host(elements_, [&](const at::Tensor& codes_here) {
    edit_on_host(scales_, [&](const at::Tensor& scales_here) {
      const auto* values = matrices_here.const_data_ptr<float>();
      auto* codes = codes_here.mutable_data_ptr<uint8_t>();
      auto* scales = scales_here.mutable_data_ptr<float>();
      each_matrix([&](int64_t rows, int64_t width, int64_t begin, int64_t code, int64_t scale) {
        each_row(rows, width, values + begin, codes + code, scales + scale,
                 [](auto row, auto bytes, auto factors) { nf4::encode(row, bytes, factors); });
      });
    });
  });
}

void KeptMatrices::read(const at::Tensor& matrices) const {
  if (matrices.is_meta()) return;
  if (format_ == FrozenFormat::fp32) {
    at::Tensor(matrices).copy_(elements_);
    return;
  }
  if (matrices.scalar_type() != at::kFloat) {
    const at::Tensor wide = Device::host().empty(matrices.sizes(), at::kFloat);
    read(wide);
    at::Tensor(matrices).copy_(wide);
    return;
  }
  const at::Tensor codes_here = on_host(elements_), scales_here = on_host(scales_);
  edit_on_host(matrices, [&](const at::Tensor& matrices_here) {
    auto* values = matrices_here.mutable_data_ptr<float>();
    const auto* codes = codes_here.const_data_ptr<uint8_t>();
    const auto* scales = scales_here.const_data_ptr<float>();
    each_matrix([&](int64_t rows, int64_t width, int64_t begin, int64_t code, int64_t scale) {
      each_row(rows, width, values + begin, codes + code, scales + scale,
               [](auto row, auto bytes, auto factors) { nf4::decode(bytes, factors, row); });
    });
  });
}

}  // namespace dsengine
