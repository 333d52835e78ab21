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
// Of several ranks each may own a part of what is trained (shards.h): its moments are of that part, and its gradient
// may be.
//
// What is trained has a float32 value beside each bfloat16 one that is read, which is its rounding; or none, where it
// is to save them.
//
// Values may come and go. A streamed unit has a home, which lies elsewhere, and for a while a copy that is brought; one
// without matrices, which are never trained, holds its vectors (norms, biases) alone, and for a while the matrices that
// are brought. While they are away their tensors have shapes and no values (meta). So may gradients, whose buffer then
// lies elsewhere.
#pragma once
#include "device/device.h"
#include "param/layout.h"
#include "param/shards.h"

namespace dsengine {

class ParamStorage {
 public:
  // flat [layout.numel()]: the values are whatever it holds until they are loaded or drawn.
  ParamStorage(ParamLayout layout, at::Tensor flat);
  // In memory of its own.
  ParamStorage(std::string name, std::vector<ParamBlock> blocks, const Device& device, at::ScalarType dtype);
  // Its matrices are away. vectors: [layout.numel() - layout.decayed_numel()].
  static ParamStorage without_matrices(ParamLayout layout, at::Tensor vectors);
  // Its blocks are away, and are read as the type. home [layout.numel()]: what is trained, averaged and saved; whatever
  // it holds until it is loaded or drawn.
  static ParamStorage streamed(ParamLayout layout, at::Tensor home, at::ScalarType read_as);
  ParamStorage(ParamStorage&&) = default;
  ParamStorage& operator=(ParamStorage&&) = default;

  const ParamLayout& layout() const { return layout_; }
  const std::string& name() const { return layout_.name(); }
  const std::vector<ParamBlock>& blocks() const { return layout_.blocks(); }

  // Whether its blocks have values always.
  bool whole() const { return away_blocks_.empty(); }
  bool streamed() const { return flat_.defined() && !whole(); }
  // All values; a streamed one's home. Not of one without matrices.
  const at::Tensor& flat() const;
  // What it holds always: flat(), or its vectors.
  const at::Tensor& held() const { return flat_.defined() ? flat_ : vectors_; }
  // Of blocks.
  at::ScalarType dtype() const { return read_as_; }
  // Of a whole one: another buffer of the type, dense, which holds the values already: what was read from the one
  // before is no longer this storage's.
  void place(at::Tensor flat);
  // Of one that is not whole: what comes and goes is there, values [brought_numel()], until it is let go of.
  void bring(at::Tensor values);
  at::Tensor let_go() noexcept;
  int64_t brought_numel() const { return flat_.defined() ? layout_.numel() : layout_.decayed_numel(); }
  const at::Tensor& brought() const { return brought_; }  // undefined while it is away
  const at::Tensor& vectors() const { return vectors_; }
  const at::Tensor& block(size_t i) const { return blocks_[i]; }
  // As ParamLayout::part_of has it.
  at::Tensor part(size_t block, size_t part) const { return part_rows(blocks()[block], part, blocks_[block]); }
  // The value that a checkpoint has: the wide one, or the home's, where there is one; else part().
  at::Tensor kept_part(size_t block, size_t part) const;
  // Elements [begin, …) are kept as these, float32, from here on; what is read is their rounding.
  void widen(int64_t begin, at::Tensor values);
  bool wide() const { return wide_.defined(); }
  const at::Tensor& wide_values() const { return wide_; }
  // After wide values were changed: what is read follows them.
  void settle();
  // Elements [begin, begin + numel) of flat(); of one without matrices, vectors alone.
  at::Tensor span(int64_t begin, int64_t numel) const;

  struct Training {
    const Device* gradient = nullptr;  // where it lies, if elsewhere than the values
    bool wide = true;                  // bfloat16 blocks that have no float32 values get some
    Sharding sharding{};               // among whom it is cut
  };
  // Of all blocks, or of those marked, whose span gets a gradient, zero. Where that lies elsewhere or is cut, its
  // blocks have values only while a whole one is brought.
  void train() { train(std::vector<bool>(blocks().size(), true)); }
  void train(const std::vector<bool>& which, const Training& how);
  void train(const std::vector<bool>& which) { train(which, Training()); }
  bool trained() const { return grad_.defined(); }
  bool trained(size_t block) const { return grad_blocks_[block].defined(); }
  // The trained span of the flat buffer, from the first trained block to the end of the last, and its gradient, float32
  // where blocks are bfloat16. Its first `trained_decayed` elements are under weight decay.
  at::Tensor trained_flat() const { return wide() ? wide_ : span(trained_begin_, trained_numel_); }
  int64_t trained_numel() const { return trained_numel_; }
  // Where ranks' parts of the trained span begin and end: this rank's is [own_begin, own_end).
  const std::vector<int64_t>& cuts() const { return cuts_; }
  bool cut() const { return cuts_.size() > 2; }
  int64_t own_begin() const { return cuts_[own_]; }
  int64_t own_end() const { return cuts_[own_ + 1]; }
  // Of the trained span, or where it is cut of this rank's part.
  const at::Tensor& grad() const { return grad_; }
  bool grad_cut() const { return grad_cut_; }
  // Elements [begin, begin + count) of the trained span, which are there.
  at::Tensor grad(int64_t begin, int64_t count) const {
    return grad_.narrow(0, begin - (grad_cut_ ? own_begin() : 0), count);
  }
  int64_t trained_begin() const { return trained_begin_; }
  int64_t trained_decayed() const;
  // Undefined where the block is not trained.
  const at::Tensor& grad_block(size_t block) const { return grad_blocks_[block]; }
  // Whether it comes and goes; whether it lies in another memory than the values.
  bool grad_parted() const { return grad_cut_ || grad_elsewhere_; }
  bool grad_elsewhere() const { return grad_elsewhere_; }
  // Of a parted one: [trained_numel()] to add to, until it is let go of.
  void bring_grad(at::Tensor grad);
  at::Tensor let_go_grad() noexcept;
  // Undefined where that is cut, or the block is not trained.
  at::Tensor grad_part(size_t block, size_t part) const;
  void zero_grad();

 private:
  struct Away {};
  ParamStorage(ParamLayout layout, at::Tensor vectors, Away);
  // Blocks of all values; of one without matrices, of these and its vectors.
  std::vector<at::Tensor> views(const at::Tensor& values) const;
  void send_away();
  std::vector<at::Tensor> grad_views(const at::Tensor& grad, const std::vector<bool>& which) const;

  ParamLayout layout_;
  at::ScalarType read_as_ = at::kFloat;
  at::Tensor flat_, grad_;
  at::Tensor wide_;  // undefined where what is read is what is trained
  int64_t wide_begin_ = 0;
  at::Tensor brought_;                                      // undefined while it is away
  at::Tensor vectors_;                                      // where there is flat_: a view
  std::vector<at::Tensor> blocks_, grad_blocks_;            // views
  std::vector<at::Tensor> away_blocks_, away_grad_blocks_;  // what they are while their buffers are away
  int64_t trained_begin_ = 0, trained_numel_ = 0;
  std::vector<int64_t> cuts_{0, 0};
  size_t own_ = 0;
  bool grad_elsewhere_ = false, grad_cut_ = false;
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
