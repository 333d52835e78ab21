// The parameters of one layer (or of the embedding, the final norm, the head) in one flat buffer: the unit of
// gathering, of the optimizer and of checkpoints.
//
//   ParamUnit unit("layers.0", blocks, device, at::kFloat);
//   unit.enable_training();                       // allocates the gradient (of some blocks: of their span)
//   at::Tensor qkv = unit.block(0);               // [q|k|v rows, in], a leaf whose .grad lies in unit.grad()
//
// Layout, fixed: blocks that weight decay applies to (matrices) first, then the others (norms, biases), each
// at a multiple of 128 bytes; the parts of a block are adjacent rows, so that a fused read of q|k|v is a view.
// Owns its tensors. Not copyable: leaves alias the flat buffers.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "device/device.h"

namespace dsengine {

enum class Init { normal, zeros, ones };

// One tensor of the checkpoint, as the engine stores it: [out, in] for matrices.
struct ParamSpec {
  std::string tensor;  // checkpoint name
  std::vector<int64_t> shape;
  Init init = Init::normal;
  bool transposed = false;  // the checkpoint stores [in, out]
  int64_t first_row = -1;   // ≥0: where it begins in a checkpoint tensor shared with others
  int64_t group_rows = 0;   // >0: there in groups of so many rows, which begin `group_stride` rows apart
  int64_t group_stride = 0;
};

// Parameters that are read together: same shape but for the first dimension.
struct ParamBlock {
  std::vector<ParamSpec> parts;
  bool decay() const { return parts[0].shape.size() > 1; }
  int64_t rows() const;
  int64_t row_numel() const;
};

class ParamUnit {
 public:
  // The values are whatever memory holds until they are loaded or drawn; the padding between blocks is zero.
  ParamUnit(std::string name, std::vector<ParamBlock> blocks, const Device& device, at::ScalarType dtype);
  ParamUnit(ParamUnit&&) = default;
  ParamUnit& operator=(ParamUnit&&) = default;

  const std::string& name() const { return name_; }
  const std::vector<ParamBlock>& blocks() const { return blocks_; }
  int64_t parameter_count() const { return parameter_count_; }
  // Elements [0, decayed_numel) of the flat buffer are under weight decay.
  int64_t decayed_numel() const { return decayed_numel_; }
  bool trained() const { return grad_.defined(); }

  const Device& device() const { return *device_; }
  const at::Tensor& flat() const { return flat_; }
  // The trained span of the flat buffer, from the first trained block to the end of the last, and its gradient.
  // Its first `trained_decayed` elements are under weight decay.
  at::Tensor trained_flat() const { return flat_.narrow(0, trained_begin_, grad_.numel()); }
  const at::Tensor& grad() const { return grad_; }
  int64_t trained_begin() const { return trained_begin_; }
  int64_t trained_decayed() const;
  const at::Tensor& block(size_t i) const { return leaves_[i]; }
  at::Tensor part(size_t block, size_t part) const { return part_of(flat_, block, part); }
  // Undefined where the block is not trained.
  at::Tensor grad_part(size_t block, size_t part) const;

  // Of all blocks, or of those marked; matrices that are trained are adjacent in the layout.
  void enable_training() { enable_training(std::vector<bool>(blocks_.size(), true)); }
  void enable_training(const std::vector<bool>& which);
  void zero_grad();

 private:
  // Views of a buffer that begins at element `begin` of the layout.
  at::Tensor view_of(const at::Tensor& flat, size_t block, int64_t begin = 0) const;
  at::Tensor part_of(const at::Tensor& flat, size_t block, size_t part, int64_t begin = 0) const;
  int64_t numel_of(size_t block) const { return blocks_[block].rows() * blocks_[block].row_numel(); }

  std::string name_;
  const Device* device_;
  std::vector<ParamBlock> blocks_;
  std::vector<int64_t> offsets_;  // of each block, in elements
  int64_t parameter_count_ = 0, decayed_numel_ = 0, trained_begin_ = 0;
  at::Tensor flat_, grad_;
  std::vector<at::Tensor> leaves_;
};

}  // namespace dsengine
