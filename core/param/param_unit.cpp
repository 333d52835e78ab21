#include "param/param_unit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace dsengine {

int64_t ParamBlock::rows() const {
  int64_t sum = 0;
  for (const auto& part : parts) sum += part.shape[0];
  return sum;
}

int64_t ParamBlock::row_numel() const {
  return std::accumulate(parts[0].shape.begin() + 1, parts[0].shape.end(), int64_t{1}, std::multiplies<>());
}

ParamUnit::ParamUnit(std::string name, std::vector<ParamBlock> blocks, const Device& device, at::ScalarType dtype)
    : name_(std::move(name)), device_(&device), blocks_(std::move(blocks)), offsets_(blocks_.size()) {
  const int64_t alignment = 128 / int64_t(c10::elementSize(dtype));
  const auto padding_of = [&](int64_t numel) { return (alignment - numel % alignment) % alignment; };
  int64_t end = 0;
  for (const bool decay : {true, false}) {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i].decay() != decay) continue;
      offsets_[i] = end;
      const int64_t numel = blocks_[i].rows() * blocks_[i].row_numel();
      parameter_count_ += numel;
      end += numel + padding_of(numel);
    }
    if (decay) decayed_numel_ = end;
  }
  flat_ = device.empty({end}, dtype);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    leaves_.push_back(view_of(flat_, i).detach());
    flat_.narrow(0, offsets_[i] + numel_of(i), padding_of(numel_of(i))).zero_();
  }
}

at::Tensor ParamUnit::view_of(const at::Tensor& flat, size_t block, int64_t begin) const {
  std::vector<int64_t> shape = blocks_[block].parts[0].shape;
  shape[0] = blocks_[block].rows();
  return flat.narrow(0, offsets_[block] - begin, numel_of(block)).view(shape);
}

at::Tensor ParamUnit::part_of(const at::Tensor& flat, size_t block, size_t part, int64_t begin) const {
  int64_t first = 0;
  for (size_t i = 0; i < part; ++i) first += blocks_[block].parts[i].shape[0];
  return view_of(flat, block, begin).narrow(0, first, blocks_[block].parts[part].shape[0]);
}

at::Tensor ParamUnit::grad_part(size_t block, size_t part) const {
  return leaves_[block].requires_grad() ? part_of(grad_, block, part, trained_begin_) : at::Tensor();
}

int64_t ParamUnit::trained_decayed() const {
  return std::clamp<int64_t>(decayed_numel_ - trained_begin_, 0, grad_.numel());
}

void ParamUnit::enable_training(const std::vector<bool>& which) {
  DSE_CHECK(which.size() == blocks_.size() && !trained(), "unit {}", name_);
  int64_t begin = flat_.numel(), end = 0;
  for (size_t i = 0; i < blocks_.size(); ++i)
    if (which[i]) begin = std::min(begin, offsets_[i]), end = std::max(end, offsets_[i] + numel_of(i));
  if (begin >= end) return;
  if (std::count(which.begin(), which.end(), true) == int64_t(blocks_.size())) end = flat_.numel();
  for (size_t i = 0; i < blocks_.size(); ++i)  // decay would move a matrix that has no gradient
    DSE_CHECK(which[i] || !blocks_[i].decay() || offsets_[i] < begin || offsets_[i] >= end, "unit {}", name_);
  trained_begin_ = begin;
  grad_ = at::zeros({end - begin}, flat_.options());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!which[i]) continue;
    leaves_[i].requires_grad_(true);
    leaves_[i].mutable_grad() = view_of(grad_, i, begin);
  }
}

void ParamUnit::zero_grad() {
  if (trained()) grad_.zero_();
}

}  // namespace dsengine
