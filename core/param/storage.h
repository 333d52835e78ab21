// The values of a layout's parameters, in a buffer that is given to it, and their gradients. The unit of gathering, of
// the optimizer and of checkpoints.
//
//   ParamStorage unit(layout, device.empty({layout.numel()}, at::kFloat));
//   unit.train();                                  // a gradient buffer beside it, of some blocks or all
//   const Parameter qkv(unit, 0);                  // what a node of the graph keeps: no tensor
//   project.forward(x, qkv.value(), {});
//
// The padding between blocks is zero. Not copyable: its views alias the buffers.
#pragma once
#include "device/device.h"
#include "param/layout.h"

namespace dsengine {

class ParamStorage {
 public:
  // flat [layout.numel()]: the values are whatever it holds until they are loaded or drawn.
  ParamStorage(ParamLayout layout, at::Tensor flat);
  // In memory of its own.
  ParamStorage(std::string name, std::vector<ParamBlock> blocks, const Device& device, at::ScalarType dtype);
  ParamStorage(ParamStorage&&) = default;
  ParamStorage& operator=(ParamStorage&&) = default;

  const ParamLayout& layout() const { return layout_; }
  const std::string& name() const { return layout_.name(); }
  const std::vector<ParamBlock>& blocks() const { return layout_.blocks(); }

  const at::Tensor& flat() const { return flat_; }
  // Another buffer of the type, dense, which holds the values already: what was read from the one before is no longer
  // this storage's.
  void place(at::Tensor flat);
  const at::Tensor& block(size_t i) const { return blocks_[i]; }
  // As ParamLayout::part_of has it.
  at::Tensor part(size_t block, size_t part) const { return layout_.part_of(flat_, block, part); }

  // Of all blocks, or of those marked, whose span gets a gradient, zero.
  void train() { train(std::vector<bool>(blocks().size(), true)); }
  void train(const std::vector<bool>& which);
  bool trained() const { return grad_.defined(); }
  bool trained(size_t block) const { return grad_blocks_[block].defined(); }
  // The trained span of the flat buffer, from the first trained block to the end of the last, and its gradient.
  // Its first `trained_decayed` elements are under weight decay.
  at::Tensor trained_flat() const { return flat_.narrow(0, trained_begin_, grad_.numel()); }
  const at::Tensor& grad() const { return grad_; }
  int64_t trained_begin() const { return trained_begin_; }
  int64_t trained_decayed() const;
  // Undefined where the block is not trained.
  const at::Tensor& grad_block(size_t block) const { return grad_blocks_[block]; }
  at::Tensor grad_part(size_t block, size_t part) const;
  void zero_grad();

 private:
  ParamLayout layout_;
  at::Tensor flat_, grad_;
  std::vector<at::Tensor> blocks_, grad_blocks_;  // views
  int64_t trained_begin_ = 0;
};

// One block, asked for its value and its gradient when they are needed: between forward and backward the storage may
// have been elsewhere. Borrows the storage; of a default one nothing is defined.
class Parameter {
 public:
  Parameter() = default;
  Parameter(const ParamStorage& storage, size_t block) : storage_(&storage), block_(block) {}
  at::Tensor value() const { return storage_ ? storage_->block(block_) : at::Tensor(); }
  // Where gradients are added; undefined where it is not trained.
  at::Tensor grad() const { return storage_ ? storage_->grad_block(block_) : at::Tensor(); }
  bool trained() const { return storage_ && storage_->trained(block_); }

 private:
  const ParamStorage* storage_ = nullptr;
  size_t block_ = 0;
};

}  // namespace dsengine
