#include "param/kept_matrices.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/check.h"
#include "base/nf4.h"
#include "ops/threads.h"

namespace dsengine {

namespace {

constexpr int64_t kElementsAThread = 1 << 15;

int64_t grain_of(int64_t width) { return std::max<int64_t>(1, kElementsAThread / width); }

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
  const auto* values = matrices.const_data_ptr<float>();
  auto* codes = elements_.mutable_data_ptr<uint8_t>();
  auto* scales = scales_.mutable_data_ptr<float>();
  each_matrix([&](int64_t rows, int64_t width, int64_t begin, int64_t code, int64_t scale) {
    const int64_t bytes = nf4::bytes_of(width), blocks = nf4::blocks_of(width);
    parallel_for(0, rows, grain_of(width), [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r)
        nf4::encode({values + begin + r * width, size_t(width)}, {codes + code + r * bytes, size_t(bytes)},
                    {scales + scale + r * blocks, size_t(blocks)});
    });
  });
}

void KeptMatrices::read(const at::Tensor& matrices) const {
  if (matrices.is_meta()) return;
  if (format_ == FrozenFormat::fp32) {
    at::Tensor(matrices).copy_(elements_);
    return;
  }
  auto* values = matrices.mutable_data_ptr<float>();
  const auto* codes = elements_.const_data_ptr<uint8_t>();
  const auto* scales = scales_.const_data_ptr<float>();
  each_matrix([&](int64_t rows, int64_t width, int64_t begin, int64_t code, int64_t scale) {
    const int64_t bytes = nf4::bytes_of(width), blocks = nf4::blocks_of(width);
    parallel_for(0, rows, grain_of(width), [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r)
        nf4::decode({codes + code + r * bytes, size_t(bytes)}, {scales + scale + r * blocks, size_t(blocks)},
                    {values + begin + r * width, size_t(width)});
    });
  });
}

}  // namespace dsengine
