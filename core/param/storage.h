// The values of a layout's parameters, in a buffer that is given to it, and their gradients. The unit of gathering, of
// the optimizer and of checkpoints.
//
//   ParamStorage unit(layout, device.empty({layout.numel()}, at::kFloat));
//   unit.train();                                  // a gradient buffer beside it, of some blocks or all
//   const Parameter qkv(unit, 0);                  // what a node of the graph keeps: no tensor
//   project.forward(x, qkv.value(), {});
//
// The padding between blocks is zero; between matrices that are brought it is whatever is there. Not copyable: its
// views alias the buffers.
//
// Of a unit whose matrices are never trained they may come and go: it then holds its vectors (norms, biases) alone, and
// for a while the matrices that are brought. While they are away their tensors have shapes and no values (meta). So may
// gradients, whose buffer then lies elsewhere.
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
  // Its matrices are away. vectors: [layout.numel() - layout.decayed_numel()].
  static ParamStorage without_matrices(ParamLayout layout, at::Tensor vectors);
  ParamStorage(ParamStorage&&) = default;
  ParamStorage& operator=(ParamStorage&&) = default;

  const ParamLayout& layout() const { return layout_; }
  const std::string& name() const { return layout_.name(); }
  const std::vector<ParamBlock>& blocks() const { return layout_.blocks(); }

  // Whether it holds all of its values, always.
  bool whole() const { return flat_.defined(); }
  // Of a whole one.
  const at::Tensor& flat() const;
  at::ScalarType dtype() const { return vectors_.scalar_type(); }
  // Another buffer of the type, dense, which holds the values already: what was read from the one before is no longer
  // this storage's.
  void place(at::Tensor flat);
  // Of one that is not whole: its matrices are there, matrices [layout.decayed_numel()], until they are let go of.
  void bring(at::Tensor matrices);
  at::Tensor let_go() noexcept;
  const at::Tensor& matrices() const { return matrices_; }  // undefined while they are away
  const at::Tensor& vectors() const { return vectors_; }
  const at::Tensor& block(size_t i) const { return blocks_[i]; }
  // As ParamLayout::part_of has it.
  at::Tensor part(size_t block, size_t part) const { return part_rows(blocks()[block], part, blocks_[block]); }
  // Elements [begin, begin + numel) of the layout; of one that is not whole, vectors alone.
  at::Tensor span(int64_t begin, int64_t numel) const;

  // Of all blocks, or of those marked, whose span gets a gradient, zero.
  void train() { train(std::vector<bool>(blocks().size(), true)); }
  // parted: blocks of the gradient have values only while a copy of it is brought.
  void train(const std::vector<bool>& which, bool parted = false);
  bool trained() const { return grad_.defined(); }
  bool trained(size_t block) const { return grad_blocks_[block].defined(); }
  // The trained span of the flat buffer, from the first trained block to the end of the last, and its gradient.
  // Its first `trained_decayed` elements are under weight decay.
  at::Tensor trained_flat() const { return span(trained_begin_, grad_.numel()); }
  const at::Tensor& grad() const { return grad_; }
  int64_t trained_begin() const { return trained_begin_; }
  int64_t trained_decayed() const;
  // Undefined where the block is not trained.
  const at::Tensor& grad_block(size_t block) const { return grad_blocks_[block]; }
  // Of a parted gradient: a copy of grad() to add to, until it is let go of.
  bool grad_parted() const { return grad_parted_; }
  void bring_grad(at::Tensor grad);
  at::Tensor let_go_grad() noexcept;
  at::Tensor grad_part(size_t block, size_t part) const;
  void zero_grad();

 private:
  struct Away {};
  ParamStorage(ParamLayout layout, at::Tensor vectors, Away);
  std::vector<at::Tensor> views(const at::Tensor& matrices) const;  // and of the vectors, as blocks
  std::vector<at::Tensor> grad_views(const at::Tensor& grad, const std::vector<bool>& which) const;

  ParamLayout layout_;
  at::Tensor flat_, grad_;
  at::Tensor matrices_;                                     // brought; undefined while they are away
  at::Tensor vectors_;                                      // of a whole storage: a view
  std::vector<at::Tensor> blocks_, grad_blocks_;            // views
  std::vector<at::Tensor> away_blocks_, away_grad_blocks_;  // what they are while their buffers are away
  int64_t trained_begin_ = 0;
  bool grad_parted_ = false;
  at::Tensor working_grad_;  // brought
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
