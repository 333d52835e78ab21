#include "param/moments.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/dynamic_code.h"
#include "memory/arena.h"
#include "memory/ledger.h"

namespace dsengine {

namespace {

constexpr int64_t kPiece = int64_t{1} << 19;  // elements in float32 at once: they stay in a processor's cache

int64_t aligned(int64_t bytes) { return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment; }

struct Sizes {
  int64_t elements, scales, vectors;  // bytes
};

// Of the matrices that lie before a block in the layout's list.
int64_t scales_before(const ParamStorage& unit, size_t block) {
  int64_t scales = 0;
  for (size_t b = 0; b < block; ++b)
    if (unit.trained(b) && unit.blocks()[b].decay())
      scales += unit.blocks()[b].rows() * DynamicCode::blocks_of(unit.blocks()[b].row_numel());
  return scales;
}

Sizes sizes_of(const ParamStorage& unit, MomentFormat format) {
  const int64_t all = unit.grad().numel(), matrices = unit.trained_decayed();
  if (format == MomentFormat::fp32) return {all * int64_t(sizeof(float)), 0, 0};
  if (format == MomentFormat::bf16) return {all * int64_t(sizeof(uint16_t)), 0, 0};
  const int64_t scales = scales_before(unit, unit.blocks().size());
  return {matrices, scales * int64_t(sizeof(float)), (all - matrices) * int64_t(sizeof(float))};
}

const DynamicCode& code_of(size_t which) { return which == 0 ? DynamicCode::of_signed() : DynamicCode::of_unsigned(); }

}  // namespace

int64_t Moments::bytes_of(const ParamStorage& unit, MomentFormat format) {
  const auto [elements, scales, vectors] = sizes_of(unit, format);
  return 2 * (aligned(elements) + aligned(scales) + aligned(vectors));
}

Moments::Moments(const ParamStorage& unit, MomentFormat format, const at::Tensor& bytes, const MomentKernels& kernels)
    : unit_(&unit), format_(format), kernels_(&kernels) {
  DSE_CHECK(unit.trained() && bytes.numel() == bytes_of(unit, format), "moments of unit {}", unit.name());
  const auto sizes = sizes_of(unit, format);
  int64_t next = 0;
  const auto take = [&](int64_t size, at::ScalarType type) {
    at::Tensor part = bytes.narrow(0, next, size).view(type);
    next += aligned(size);
    return part;
  };
  const at::ScalarType type = format == MomentFormat::fp32   ? at::kFloat
                              : format == MomentFormat::bf16 ? at::kBFloat16
                                                             : at::kByte;
  for (auto& kept : kept_) kept.elements = take(sizes.elements, type);
  if (format == MomentFormat::bits8)
    for (auto& kept : kept_)
      kept.scales = take(sizes.scales, at::kFloat), kept.vectors = take(sizes.vectors, at::kFloat);
  bytes.zero_();
  if (format != MomentFormat::bits8 || bytes.is_meta()) return;
  for (size_t which : {0, 1}) {  // the code of zero
    const auto& values = code_of(which).values();
    kept_[which].elements.fill_(int64_t(std::ranges::lower_bound(values, 0.0f) - values.begin()));
  }
}

int64_t Moments::row_numel(size_t block) const {
  const ParamBlock& b = unit_->blocks()[block];
  return b.decay() ? b.row_numel() : 1;
}

int64_t Moments::begin_of(size_t block) const { return unit_->layout().offset_of(block) - unit_->trained_begin(); }

at::Tensor Moments::scales_of(const Kept& kept, size_t block) const {
  const int64_t rows = unit_->blocks()[block].rows(), of_row = DynamicCode::blocks_of(row_numel(block));
  return kept.scales.narrow(0, scales_before(*unit_, block), rows * of_row).view({rows, of_row});
}

void Moments::decode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& to) const {
  const int64_t width = row_numel(block), rows = last - first;
  const Kept& kept = kept_[which];
  const at::Tensor elements = kept.elements.narrow(0, begin_of(block) + first * width, rows * width);
  if (format_ == MomentFormat::bf16)
    at::Tensor(to).copy_(elements);
  else
    kernels_->codes[which].decode(elements.view({rows, width}), scales_of(kept, block).narrow(0, first, rows),
                                  to.view({rows, width}));
}

void Moments::encode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& from,
                     const Philox& draws) {
  const int64_t width = row_numel(block), rows = last - first, base = begin_of(block) + first * width;
  const Kept& kept = kept_[which];
  const at::Tensor elements = kept.elements.narrow(0, base, rows * width);
  if (format_ == MomentFormat::bf16)
    kernels_->round(from, elements, base, {draws, which});
  else
    kernels_->codes[which].encode(from.view({rows, width}), elements.view({rows, width}),
                                  scales_of(kept, block).narrow(0, first, rows));
}

void Moments::update(const Philox& draws, const Piece& f) {
  const int64_t all = unit_->grad().numel(), matrices = unit_->trained_decayed();
  if (format_ == MomentFormat::fp32) return f(0, all, kept_[0].elements, kept_[1].elements);
  const at::TensorOptions options = kept_[0].elements.options().dtype(at::kFloat);
  for (size_t b = 0; b < unit_->blocks().size(); ++b) {
    if (!unit_->trained(b) || (format_ == MomentFormat::bits8 && !unit_->blocks()[b].decay())) continue;
    const int64_t width = row_numel(b), rows = unit_->layout().numel_of(b) / width;
    const int64_t step = std::clamp<int64_t>(kPiece / width, 1, rows);
    const MemoryScope scope(MemoryTag::workspace);
    const at::Tensor piece[2] = {at::empty({step * width}, options), at::empty({step * width}, options)};
    for (int64_t first = 0; first < rows; first += step) {
      const int64_t last = std::min(rows, first + step), count = (last - first) * width;
      const at::Tensor mean = piece[0].narrow(0, 0, count), square = piece[1].narrow(0, 0, count);
      decode(0, b, first, last, mean), decode(1, b, first, last, square);
      f(begin_of(b) + first * width, count, mean, square);
      encode(0, b, first, last, mean, draws), encode(1, b, first, last, square, draws);
    }
  }
  if (format_ == MomentFormat::bits8 && all > matrices) f(matrices, all - matrices, kept_[0].vectors, kept_[1].vectors);
}

at::Tensor Moments::values(size_t which) const {
  const Kept& kept = kept_[which];
  if (format_ == MomentFormat::fp32) return kept.elements;
  if (format_ == MomentFormat::bf16) return kept.elements.to(at::kFloat);
  const int64_t matrices = unit_->trained_decayed();
  at::Tensor all = at::zeros_like(unit_->grad());
  for (size_t b = 0; b < unit_->blocks().size(); ++b)
    if (unit_->trained(b) && unit_->blocks()[b].decay())
      decode(which, b, 0, unit_->blocks()[b].rows(), all.narrow(0, begin_of(b), unit_->layout().numel_of(b)));
  all.narrow(0, matrices, all.numel() - matrices).copy_(kept.vectors);
  return all;
}

void Moments::visit(void (*rows)(const at::Tensor&, at::IntArrayRef, const std::string&, const PlacedRows&),
                    const PlacedRows& f) const {
  const ParamLayout& layout = unit_->layout();
  for (size_t which : {0, 1})
    for (size_t b = 0; b < layout.blocks().size(); ++b)
      for (size_t p = 0; unit_->trained(b) && p < layout.blocks()[b].parts.size(); ++p) {
        const Kept& kept = kept_[which];
        const ParamSpec& spec = layout.blocks()[b].parts[p];
        const std::string name = which == 0 ? "first_moment" : "second_moment";
        const bool codes = format_ == MomentFormat::bits8, matrix = layout.blocks()[b].decay();
        const int64_t begin = unit_->trained_begin() + (codes && !matrix ? unit_->trained_decayed() : 0);
        rows(layout.part_of(codes && !matrix ? kept.vectors : kept.elements, b, p, begin), spec.shape,
             name + "/" + place_of(spec), f);
        if (!codes || !matrix) continue;
        const at::Tensor scales = scales_of(kept, b);
        rows(part_rows(layout.blocks()[b], p, scales), {spec.shape[0], scales.size(1)},
             name + "_scale/" + place_of(spec), f);
      }
}

}  // namespace dsengine
