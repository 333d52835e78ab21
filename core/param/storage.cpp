#include "param/storage.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "memory/ledger.h"
#include "ops/wide.h"

namespace dsengine {

namespace {

// [numel] of a buffer that is away: a shape without values, in nobody's book.
at::Tensor nothing(at::ScalarType type, int64_t numel) {
  static Ledger& nowhere = *new Ledger;
  const MemoryScope scope(MemoryTag::other, nowhere);
  return at::empty({1}, at::TensorOptions().device(at::kMeta).dtype(type)).expand({numel});
}

}  // namespace

ParamStorage::ParamStorage(ParamLayout layout, at::Tensor flat)
    : layout_(std::move(layout)), read_as_(flat.scalar_type()) {
  grad_blocks_.resize(blocks().size());
  place(std::move(flat));
  for (size_t i = 0; i < blocks().size(); ++i)
    flat_.narrow(0, layout_.offset_of(i) + layout_.numel_of(i), layout_.padding_of(i)).zero_();
}

ParamStorage::ParamStorage(ParamLayout layout, at::Tensor vectors, Away)
    : layout_(std::move(layout)), read_as_(vectors.scalar_type()), vectors_(std::move(vectors)) {
  DSE_CHECK(vectors_.dim() == 1 && vectors_.numel() == layout_.numel() - layout_.decayed_numel(),
            "{} elements for the vectors of unit {}", vectors_.numel(), name());
  grad_blocks_.resize(blocks().size());
  send_away();
  for (size_t i = 0; i < blocks().size(); ++i)
    if (!blocks()[i].decay()) span(layout_.offset_of(i) + layout_.numel_of(i), layout_.padding_of(i)).zero_();
}

ParamStorage ParamStorage::without_matrices(ParamLayout layout, at::Tensor vectors) {
  return {std::move(layout), std::move(vectors), Away{}};
}

ParamStorage ParamStorage::streamed(ParamLayout layout, at::Tensor home, at::ScalarType read_as) {
  ParamStorage unit(std::move(layout), std::move(home));
  unit.read_as_ = read_as;
  unit.send_away();
  return unit;
}

void ParamStorage::send_away() { blocks_ = away_blocks_ = views(nothing(dtype(), brought_numel())); }

std::vector<at::Tensor> ParamStorage::views(const at::Tensor& values) const {
  std::vector<at::Tensor> views;
  for (size_t i = 0; i < blocks().size(); ++i)
    views.push_back(flat_.defined() || blocks()[i].decay() ? layout_.block_of(values, i)
                                                           : layout_.block_of(vectors_, i, layout_.decayed_numel()));
  return views;
}

const at::Tensor& ParamStorage::flat() const {
  DSE_CHECK(flat_.defined(), "the matrices of unit {} come and go", name());
  return flat_;
}

void ParamStorage::bring(at::Tensor values) {
  DSE_CHECK(!whole() && !brought_.defined(), "unit {} has its values", name());
  DSE_CHECK(values.dim() == 1 && values.numel() == brought_numel() && values.scalar_type() == dtype(),
            "{} elements for the {} of unit {}", values.numel(), brought_numel(), name());
  brought_ = std::move(values);
  blocks_ = views(brought_);
}

at::Tensor ParamStorage::let_go() noexcept {
  blocks_ = away_blocks_;
  return std::exchange(brought_, at::Tensor());
}

at::Tensor ParamStorage::kept_part(size_t block, size_t part) const {
  const int64_t begin = layout_.offset_of(block), end = begin + layout_.numel_of(block);
  if (wide() && begin >= wide_begin_ && end <= wide_begin_ + wide_.numel())
    return layout_.part_of(wide_, block, part, wide_begin_);
  if (streamed() && flat_.scalar_type() != dtype()) return layout_.part_of(flat_, block, part);
  return this->part(block, part);
}

void ParamStorage::widen(int64_t begin, at::Tensor values) {
  wide_begin_ = begin, wide_ = std::move(values);
  settle();
}

void ParamStorage::settle() {
  if (wide()) span(wide_begin_, wide_.numel()).copy_(wide_);
}

at::Tensor ParamStorage::span(int64_t begin, int64_t numel) const {
  if (flat_.defined()) return flat_.narrow(0, begin, numel);
  DSE_CHECK(begin >= layout_.decayed_numel(), "matrices of unit {} that come and go", name());
  return vectors_.narrow(0, begin - layout_.decayed_numel(), numel);
}

void ParamStorage::place(at::Tensor flat) {
  DSE_CHECK(flat.dim() == 1 && flat.numel() == layout_.numel() && flat.is_contiguous(), "{} elements for unit {}",
            flat.numel(), name());
  DSE_CHECK(whole(), "unit {} comes and goes", name());
  DSE_CHECK(flat.scalar_type() == dtype(), "another type for unit {}", name());
  flat_ = std::move(flat);
  vectors_ = flat_.narrow(0, layout_.decayed_numel(), layout_.numel() - layout_.decayed_numel());
  blocks_ = views(flat_);
}

namespace {

ParamStorage allocated(ParamLayout layout, const Device& device, at::ScalarType dtype) {
  const MemoryScope scope(MemoryTag::weights);
  at::Tensor flat = device.empty({layout.numel()}, dtype);
  return ParamStorage(std::move(layout), std::move(flat));
}

}  // namespace

ParamStorage::ParamStorage(std::string name, std::vector<ParamBlock> blocks, const Device& device, at::ScalarType dtype)
    : ParamStorage(allocated({std::move(name), std::move(blocks), int64_t(c10::elementSize(dtype))}, device, dtype)) {}

void ParamStorage::train(const std::vector<bool>& which, const Training& how) {
  DSE_CHECK(!trained(), "unit {}", name());
  const auto span = layout_.span_of(which);
  if (!span) return;
  DSE_CHECK(flat_.defined() || span->begin >= layout_.decayed_numel(), "matrices of unit {} that come and go", name());
  trained_begin_ = span->begin, trained_numel_ = span->numel;
  cuts_ = shard_cuts(layout_, *span, how.sharding.size()), own_ = size_t(how.sharding.rank());
  const at::ScalarType type = ops::wide(dtype());
  const at::Tensor values = this->span(span->begin, span->numel);
  const bool has_wide =
      wide() && wide_begin_ <= span->begin && span->begin + span->numel <= wide_begin_ + wide_.numel();
  if (has_wide) {
    wide_ = wide_.narrow(0, span->begin - wide_begin_, span->numel), wide_begin_ = span->begin;
  } else if (how.wide && values.scalar_type() != type) {
    const MemoryScope scope(MemoryTag::weights);
    widen(span->begin, values.to(type));
  }
  const MemoryScope scope(MemoryTag::gradients);
  grad_elsewhere_ = how.gradient != nullptr, grad_cut_ = how.sharding.gradients();
  const int64_t numel = grad_cut_ ? own_end() - own_begin() : trained_numel_;
  grad_ =
      how.gradient ? how.gradient->empty({numel}, type).zero_() : at::zeros({numel}, vectors_.options().dtype(type));
  grad_blocks_ = grad_views(grad_parted() ? nothing(type, trained_numel_) : grad_, which);
  if (grad_parted()) away_grad_blocks_ = grad_blocks_;
}

std::vector<at::Tensor> ParamStorage::grad_views(const at::Tensor& grad, const std::vector<bool>& which) const {
  std::vector<at::Tensor> views(blocks().size());
  for (size_t i = 0; i < blocks().size(); ++i)
    if (which[i]) views[i] = layout_.block_of(grad, i, trained_begin_);
  return views;
}

void ParamStorage::bring_grad(at::Tensor grad) {
  DSE_CHECK(grad_parted() && grad.dim() == 1 && grad.numel() == trained_numel_, "unit {}", name());
  std::vector<bool> which;
  for (size_t i = 0; i < blocks().size(); ++i) which.push_back(trained(i));
  working_grad_ = std::move(grad);
  grad_blocks_ = grad_views(working_grad_, which);
}

at::Tensor ParamStorage::let_go_grad() noexcept {
  grad_blocks_ = away_grad_blocks_;
  return std::exchange(working_grad_, at::Tensor());
}

int64_t ParamStorage::trained_decayed() const {
  return std::clamp<int64_t>(layout_.decayed_numel() - trained_begin_, 0, trained_numel_);
}

at::Tensor ParamStorage::grad_part(size_t block, size_t part) const {
  return trained(block) && !grad_cut_ ? layout_.part_of(grad_, block, part, trained_begin_) : at::Tensor();
}

void ParamStorage::zero_grad() {
  if (trained()) grad_.zero_();
}

}  // namespace dsengine
