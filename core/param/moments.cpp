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

const DynamicCode& code_of(size_t which) { return which == 0 ? DynamicCode::of_signed() : DynamicCode::of_unsigned(); }

int64_t element_bytes(MomentFormat format) {
  if (format == MomentFormat::bits8) return 1;
  return format == MomentFormat::bf16 ? int64_t(sizeof(uint16_t)) : int64_t(sizeof(float));
}

}  // namespace

Moments::Span Moments::span_of(const ParamStorage& unit, Extent extent) {
  if (extent == Extent::whole) return {0, unit.trained_numel()};
  return {unit.own_begin(), unit.own_end()};
}

Moments::Rows Moments::rows_in(const ParamStorage& unit, Span span, size_t block) {
  const ParamBlock& b = unit.blocks()[block];
  const int64_t width = b.decay() ? b.row_numel() : 1, rows = unit.layout().numel_of(block) / width;
  const int64_t begin = unit.layout().offset_of(block) - unit.trained_begin();
  const auto row = [&](int64_t at) { return std::clamp<int64_t>((at - begin) / width, 0, rows); };
  return {row(span.begin), row(span.end)};
}

// Of the matrices that lie before a block; of one behind the last, of all. As they lie, not as they are listed: parts
// are joined in that order.
int64_t Moments::scales_before(const ParamStorage& unit, Span span, size_t block) {
  int64_t scales = 0;
  const ParamLayout& layout = unit.layout();
  for (size_t b = 0; b < layout.blocks().size(); ++b) {
    if (!unit.trained(b) || !layout.blocks()[b].decay()) continue;
    if (block < layout.blocks().size() && layout.offset_of(b) >= layout.offset_of(block)) continue;
    const Rows rows = rows_in(unit, span, b);
    scales += (rows.last - rows.first) * DynamicCode::blocks_of(unit.blocks()[b].row_numel());
  }
  return scales;
}

Moments::Sizes Moments::sizes_of(const ParamStorage& unit, MomentFormat format, Span span) {
  const int64_t all = span.end - span.begin;
  if (format != MomentFormat::bits8) return {all, 0, 0};
  const int64_t matrices = std::clamp<int64_t>(unit.trained_decayed() - span.begin, 0, all);
  return {matrices, scales_before(unit, span, unit.blocks().size()), all - matrices};
}

int64_t Moments::bytes_of(const ParamStorage& unit, MomentFormat format, Extent extent) {
  const auto [elements, scales, vectors] = sizes_of(unit, format, span_of(unit, extent));
  return 2 * (aligned(elements * element_bytes(format)) + aligned(scales * int64_t(sizeof(float))) +
              aligned(vectors * int64_t(sizeof(float))));
}

Moments::Moments(const ParamStorage& unit, MomentFormat format, const at::Tensor& bytes, const MomentKernels& kernels,
                 Extent extent)
    : unit_(&unit), format_(format), kernels_(&kernels), span_(span_of(unit, extent)) {
  DSE_CHECK(unit.trained() && bytes.numel() == bytes_of(unit, format, extent), "moments of unit {}", unit.name());
  const auto sizes = sizes_of(unit, format, span_);
  int64_t next = 0;
  const auto take = [&](int64_t numel, at::ScalarType type) {
    const int64_t size = numel * int64_t(c10::elementSize(type));
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
  const int64_t rows = rows_of(block).last - rows_of(block).first, of_row = DynamicCode::blocks_of(row_numel(block));
  return kept.scales.narrow(0, scales_before(*unit_, span_, block), rows * of_row).view({rows, of_row});
}

void Moments::decode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& to) const {
  const int64_t width = row_numel(block), rows = last - first;
  const Kept& kept = kept_[which];
  const at::Tensor elements = kept.elements.narrow(0, begin_of(block) + first * width - span_.begin, rows * width);
  if (format_ == MomentFormat::bf16)
    at::Tensor(to).copy_(elements);
  else
    kernels_->codes[which].decode(elements.view({rows, width}),
                                  scales_of(kept, block).narrow(0, first - rows_of(block).first, rows),
                                  to.view({rows, width}));
}

void Moments::encode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& from,
                     const Philox& draws) {
  const int64_t width = row_numel(block), rows = last - first, base = begin_of(block) + first * width;
  const Kept& kept = kept_[which];
  const at::Tensor elements = kept.elements.narrow(0, base - span_.begin, rows * width);
  if (format_ == MomentFormat::bf16)
    kernels_->round(from, elements, base, {draws, which});
  else
    kernels_->codes[which].encode(from.view({rows, width}), elements.view({rows, width}),
                                  scales_of(kept, block).narrow(0, first - rows_of(block).first, rows));
}

void Moments::update(const Philox& draws, const Piece& f) {
  const auto [begin, end] = span_;
  if (begin == end) return;
  if (format_ == MomentFormat::fp32) return f(begin, end - begin, kept_[0].elements, kept_[1].elements);
  const at::TensorOptions options = kept_[0].elements.options().dtype(at::kFloat);
  for (size_t b = 0; b < unit_->blocks().size(); ++b) {
    if (!unit_->trained(b) || (format_ == MomentFormat::bits8 && !unit_->blocks()[b].decay())) continue;
    const auto [first_row, last_row] = rows_of(b);
    if (first_row == last_row) continue;
    const int64_t width = row_numel(b), step = std::clamp<int64_t>(kPiece / width, 1, last_row - first_row);
    const MemoryScope scope(MemoryTag::workspace);
    const at::Tensor piece[2] = {at::empty({step * width}, options), at::empty({step * width}, options)};
    for (int64_t first = first_row; first < last_row; first += step) {
      const int64_t last = std::min(last_row, first + step), count = (last - first) * width;
      const at::Tensor mean = piece[0].narrow(0, 0, count), square = piece[1].narrow(0, 0, count);
      decode(0, b, first, last, mean), decode(1, b, first, last, square);
      f(begin_of(b) + first * width, count, mean, square);
      encode(0, b, first, last, mean, draws), encode(1, b, first, last, square, draws);
    }
  }
  if (const int64_t vectors = format_ == MomentFormat::bits8 ? kept_[0].vectors.numel() : 0; vectors > 0)
    f(end - vectors, vectors, kept_[0].vectors, kept_[1].vectors);
}

at::Tensor Moments::values(size_t which) const {
  const Kept& kept = kept_[which];
  if (format_ == MomentFormat::fp32) return kept.elements;
  if (format_ == MomentFormat::bf16) return kept.elements.to(at::kFloat);
  at::Tensor all = at::zeros({span_.end - span_.begin}, kept.vectors.options());
  for (size_t b = 0; b < unit_->blocks().size(); ++b) {
    if (!unit_->trained(b) || !unit_->blocks()[b].decay()) continue;
    const auto [first, last] = rows_of(b);
    const int64_t width = row_numel(b), begin = begin_of(b) + first * width - span_.begin;
    if (first < last) decode(which, b, first, last, all.narrow(0, begin, (last - first) * width));
  }
  all.narrow(0, all.numel() - kept.vectors.numel(), kept.vectors.numel()).copy_(kept.vectors);
  return all;
}

template <class F>
void Moments::each_kept(const Moments& other, const F& f) const {
  for (const size_t which : {0, 1}) {
    f(kept_[which].elements, other.kept_[which].elements, &Sizes::elements);
    if (format_ != MomentFormat::bits8) continue;
    f(kept_[which].scales, other.kept_[which].scales, &Sizes::scales);
    f(kept_[which].vectors, other.kept_[which].vectors, &Sizes::vectors);
  }
}

// What ranks keep lies in the whole one after the other.
void Moments::gather(const Moments& own, Communicator& ranks) {
  each_kept(own, [&](const at::Tensor& whole, const at::Tensor& part, int64_t Sizes::*size) {
    std::vector<int64_t> cuts{0};
    for (size_t r = 0; r + 1 < unit_->cuts().size(); ++r)
      cuts.push_back(cuts.back() + sizes_of(*unit_, format_, {unit_->cuts()[r], unit_->cuts()[r + 1]}).*size);
    at::Tensor(whole).narrow(0, cuts[size_t(ranks.rank())], part.numel()).copy_(part);
    ranks.gather_parts(whole, cuts);
  });
}

void Moments::take(const Moments& whole) {
  const Sizes before = sizes_of(*unit_, format_, {0, span_.begin});
  each_kept(whole, [&](const at::Tensor& part, const at::Tensor& all, int64_t Sizes::*size) {
    at::Tensor(part).copy_(all.narrow(0, before.*size, part.numel()));
  });
}

void Moments::visit(void (*rows)(const at::Tensor&, at::IntArrayRef, const std::string&, const PlacedRows&),
                    const PlacedRows& f) const {
  DSE_CHECK(span_.begin == 0 && span_.end == unit_->trained_numel(), "a part of the moments of unit {}", unit_->name());
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
