#include "param/layout.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/check.h"

namespace dsengine {

namespace {

constexpr int64_t kAlignment = 128;  // bytes

void check_interleave(const std::string& unit, const ParamBlock& block) {
  const int64_t rows = block.parts[0].shape[0], g = block.interleave;
  for (const auto& part : block.parts)
    DSE_CHECK(g == 0 || (g > 0 && part.shape[0] == rows && rows % g == 0),
              "unit {}: the {} rows of {} beside {} of {} in groups of {}", unit, part.shape[0], part.tensor, rows,
              block.parts[0].tensor, g);
}

// Matrices, tables among them last: what an adapter may leave to be trained (tables, biases, norms) is adjacent.
int rank_of(const ParamBlock& block) {
  const ParamRole role = block.parts[0].role;
  const bool table = role == ParamRole::embedding || role == ParamRole::positions;
  return !block.decay() ? 2 : table ? 1 : 0;
}

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

RowSpan rows_of_rank(const ParamBlock& block, int64_t rank, int64_t size) {
  DSE_CHECK(rank >= 0 && rank < size, "rank {} of {}", rank, size);
  const int64_t share = block.parts[0].shape[0] / size, parts = int64_t(block.parts.size());
  for (const auto& part : block.parts)
    DSE_CHECK(split_axis(part) == SplitAxis::rows && part.shape[0] == share * size, "{} of {} ranks", part.tensor,
              size);
  DSE_CHECK(parts == 1 || (block.interleave > 0 && share % block.interleave == 0),
            "{}: {} rows a rank, groups of {}: they are apart", block.parts[0].tensor, share, block.interleave);
  return {rank * share * parts, share * parts};
}

ParamLayout::ParamLayout(std::string name, std::vector<ParamBlock> blocks, int64_t element_size)
    : name_(std::move(name)),
      blocks_(std::move(blocks)),
      offsets_(blocks_.size()),
      alignment_(kAlignment / element_size) {
  for (const auto& block : blocks_) check_interleave(name_, block);
  for (const int rank : {0, 1, 2}) {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (rank_of(blocks_[i]) != rank) continue;
      offsets_[i] = numel_;
      parameter_count_ += numel_of(i);
      numel_ += numel_of(i) + padding_of(i);
    }
    if (rank < 2) decayed_numel_ = numel_;
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
  return part_rows(blocks_[block], part, block_of(flat, block, begin));
}

at::Tensor part_rows(const ParamBlock& block, size_t part, const at::Tensor& rows) {
  const int64_t own = block.parts[part].shape[0];
  if (block.interleave > 0) {
    std::vector<int64_t> groups = rows.sizes().vec();  // [own / g, parts, g, …]
    groups[0] = block.interleave;
    groups.insert(groups.begin(), {own / block.interleave, int64_t(block.parts.size())});
    return rows.view(groups).select(1, int64_t(part));
  }
  int64_t first = 0;
  for (size_t i = 0; i < part; ++i) first += block.parts[i].shape[0];
  return rows.narrow(0, first, own);
}

}  // namespace dsengine
