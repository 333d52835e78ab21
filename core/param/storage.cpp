#include "param/storage.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/check.h"
#include "memory/ledger.h"

namespace dsengine {

ParamStorage::ParamStorage(ParamLayout layout, at::Tensor flat) : layout_(std::move(layout)) {
  grad_blocks_.resize(blocks().size());
  place(std::move(flat));
  for (size_t i = 0; i < blocks().size(); ++i)
    flat_.narrow(0, layout_.offset_of(i) + layout_.numel_of(i), layout_.padding_of(i)).zero_();
}

void ParamStorage::place(at::Tensor flat) {
  DSE_CHECK(flat.dim() == 1 && flat.numel() == layout_.numel() && flat.is_contiguous(), "{} elements for unit {}",
            flat.numel(), name());
  DSE_CHECK(!flat_.defined() || flat.scalar_type() == flat_.scalar_type(), "another type for unit {}", name());
  flat_ = std::move(flat);
  blocks_.clear();
  for (size_t i = 0; i < blocks().size(); ++i) blocks_.push_back(layout_.block_of(flat_, i));
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

void ParamStorage::train(const std::vector<bool>& which) {
  DSE_CHECK(!trained(), "unit {}", name());
  const auto span = layout_.span_of(which);
  if (!span) return;
  trained_begin_ = span->begin;
  const MemoryScope scope(MemoryTag::gradients);
  grad_ = at::zeros({span->numel}, flat_.options());
  for (size_t i = 0; i < blocks().size(); ++i)
    if (which[i]) grad_blocks_[i] = layout_.block_of(grad_, i, trained_begin_);
}

int64_t ParamStorage::trained_decayed() const {
  return std::clamp<int64_t>(layout_.decayed_numel() - trained_begin_, 0, grad_.numel());
}

at::Tensor ParamStorage::grad_part(size_t block, size_t part) const {
  return trained(block) ? layout_.part_of(grad_, block, part, trained_begin_) : at::Tensor();
}

void ParamStorage::zero_grad() {
  if (trained()) grad_.zero_();
}

}  // namespace dsengine
