#include <ATen/ATen.h>

#include <algorithm>

#include "base/dynamic_code.h"
#include "base/nf4.h"
#include "ops/reference/reference.h"
#include "ops/threads.h"
#include "ops/wide.h"

namespace dsengine::reference {

using at::Tensor;
using ops::RowCode;

namespace {

const DynamicCode& dynamic(RowCode code) {
  return code == RowCode::dynamic_signed ? DynamicCode::of_signed() : DynamicCode::of_unsigned();
}

// f(values, codes, scales) of each row, on the host.
template <class Value, class Code, class Scale, class F>
void each_row(int64_t rows, int64_t width, int64_t bytes, int64_t blocks, Value* values, Code* codes, Scale* scales,
              const F& f) {
  constexpr int64_t kElementsAThread = 1 << 14;
  parallel_for(0, rows, std::max<int64_t>(1, kElementsAThread / std::max<int64_t>(1, width)),
               [&](int64_t first, int64_t last) {
                 for (int64_t r = first; r < last; ++r)
                   f(std::span(values + r * width, size_t(width)), std::span(codes + r * bytes, size_t(bytes)),
                     std::span(scales + r * blocks, size_t(blocks)));
               });
}

}  // namespace

std::span<const float> values_of(RowCode code) {
  return code == RowCode::nf4 ? std::span<const float>(nf4::values()) : std::span<const float>(dynamic(code).values());
}

void encode_rows(RowCode code, const Tensor& x, const Tensor& codes, const Tensor& scales) {
  if (x.is_meta()) return;
  const Tensor x_here = on_host(ops::widened(x));
  edit_on_host(codes, [&](const Tensor& codes_here) {
    edit_on_host(scales, [&](const Tensor& scales_here) {
      each_row(x.size(0), x.size(1), codes.size(1), scales.size(1), x_here.const_data_ptr<float>(),
               codes_here.mutable_data_ptr<uint8_t>(), scales_here.mutable_data_ptr<float>(),
               [&](auto row, auto bytes, auto factors) {
                 code == RowCode::nf4 ? nf4::encode(row, bytes, factors) : dynamic(code).encode(row, bytes, factors);
               });
    });
  });
}

void decode_rows(RowCode code, const Tensor& codes, const Tensor& scales, const Tensor& y) {
  if (y.is_meta()) return;
  if (y.scalar_type() != at::kFloat) {
    const Tensor wide = Device::host().empty(y.sizes(), at::kFloat);
    decode_rows(code, on_host(codes), on_host(scales), wide);
    Tensor(y).copy_(wide);
    return;
  }
  const Tensor codes_here = on_host(codes), scales_here = on_host(scales);
  edit_on_host(y, [&](const Tensor& y_here) {
    each_row(y.size(0), y.size(1), codes.size(1), scales.size(1), y_here.mutable_data_ptr<float>(),
             codes_here.const_data_ptr<uint8_t>(), scales_here.const_data_ptr<float>(),
             [&](auto row, auto bytes, auto factors) {
               code == RowCode::nf4 ? nf4::decode(bytes, factors, row) : dynamic(code).decode(bytes, factors, row);
             });
  });
}

}  // namespace dsengine::reference
