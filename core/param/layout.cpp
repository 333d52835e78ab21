#include "param/layout.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/check.h"

namespace dsengine {

namespace {

constexpr int64_t kAlignment = 128;  // bytes

}  // namespace

SplitAxis split_axis(const ParamSpec& spec) {
  switch (spec.role) {
    case ParamRole::embedding:
    case ParamRole::head:
    case ParamRole::q:
    case ParamRole::k:
    case ParamRole::v:
    case ParamRole::gate:
    case ParamRole::up:
      return SplitAxis::rows;
    case ParamRole::o:
    case ParamRole::down:
      return spec.is_bias() ? SplitAxis::none : SplitAxis::columns;
    default:
      return SplitAxis::none;
  }
}

int64_t ParamBlock::rows() const {
  int64_t sum = 0;
  for (const auto& part : parts) sum += part.shape[0];
  return sum;
}

int64_t ParamBlock::row_numel() const {
  return std::accumulate(parts[0].shape.begin() + 1, parts[0].shape.end(), int64_t{1}, std::multiplies<>());
}

ParamLayout::ParamLayout(std::string name, std::vector<ParamBlock> blocks, int64_t element_size)
    : name_(std::move(name)),
      blocks_(std::move(blocks)),
      offsets_(blocks_.size()),
      alignment_(kAlignment / element_size) {
  for (const bool decay : {true, false}) {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i].decay() != decay) continue;
      offsets_[i] = numel_;
      parameter_count_ += numel_of(i);
      numel_ += numel_of(i) + padding_of(i);
    }
    if (decay) decayed_numel_ = numel_;
  }
}

int64_t ParamLayout::padding_of(size_t block) const { return (alignment_ - numel_of(block) % alignment_) % alignment_; }

std::optional<ParamLayout::Span> ParamLayout::span_of(const std::vector<bool>& which) const {
  DSE_CHECK(which.size() == blocks_.size(), "unit {}", name_);
  int64_t begin = numel_, end = 0;
  for (size_t i = 0; i < blocks_.size(); ++i)
    if (which[i]) begin = std::min(begin, offsets_[i]), end = std::max(end, offsets_[i] + numel_of(i));
  if (begin >= end) return std::nullopt;
  if (std::count(which.begin(), which.end(), true) == int64_t(blocks_.size())) end = numel_;
  for (size_t i = 0; i < blocks_.size(); ++i)  // decay would move a matrix that has no gradient
    DSE_CHECK(which[i] || !blocks_[i].decay() || offsets_[i] < begin || offsets_[i] >= end, "unit {}", name_);
  return Span{begin, end - begin};
}

at::Tensor ParamLayout::block_of(const at::Tensor& flat, size_t block, int64_t begin) const {
  std::vector<int64_t> shape = blocks_[block].parts[0].shape;
  shape[0] = blocks_[block].rows();
  return flat.narrow(0, offsets_[block] - begin, numel_of(block)).view(shape);
}

at::Tensor ParamLayout::part_of(const at::Tensor& flat, size_t block, size_t part, int64_t begin) const {
  int64_t first = 0;
  for (size_t i = 0; i < part; ++i) first += blocks_[block].parts[i].shape[0];
  return block_of(flat, block, begin).narrow(0, first, blocks_[block].parts[part].shape[0]);
}

}  // namespace dsengine
