// The parameters of one layer (or of the embedding, the final norm, the head) in one flat buffer: the unit of
// gathering, of the optimizer and of checkpoints.
//
//   ParamUnit unit("layers.0", blocks, at::kFloat);
//   unit.enable_training();                       // allocates the gradient
//   at::Tensor qkv = unit.block(0);               // [q|k|v rows, in], a leaf whose .grad lies in unit.grad()
//
// Layout, fixed: blocks that weight decay applies to (matrices) first, then the others (norms, biases), each
// at a multiple of 128 bytes; the parts of a block are adjacent rows, so that a fused read of q|k|v is a view.
// Owns its tensors. Not copyable: leaves alias the flat buffers.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace dsengine {

enum class Init { normal, zeros, ones };

// One tensor of the checkpoint, as the engine stores it: [out, in] for matrices.
struct ParamSpec {
  std::string tensor;  // checkpoint name
  std::vector<int64_t> shape;
  Init init = Init::normal;
  bool transposed = false;  // the checkpoint stores [in, out]
  int64_t first_row = -1;   // ≥0: where it begins in a checkpoint tensor shared with others
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
  ParamUnit(std::string name, std::vector<ParamBlock> blocks, at::ScalarType dtype);
  ParamUnit(ParamUnit&&) = default;
  ParamUnit& operator=(ParamUnit&&) = default;

  const std::string& name() const { return name_; }
  const std::vector<ParamBlock>& blocks() const { return blocks_; }
  int64_t parameter_count() const { return parameter_count_; }
  // Elements [0, decayed_numel) of the flat buffer are under weight decay.
  int64_t decayed_numel() const { return decayed_numel_; }
  bool trained() const { return grad_.defined(); }

  const at::Tensor& flat() const { return flat_; }
  const at::Tensor& grad() const { return grad_; }
  const at::Tensor& block(size_t i) const { return leaves_[i]; }
  at::Tensor part(size_t block, size_t part) const { return part_of(flat_, block, part); }
  at::Tensor grad_part(size_t block, size_t part) const { return part_of(grad_, block, part); }

  void enable_training();
  void zero_grad();

 private:
  at::Tensor view_of(const at::Tensor& flat, size_t block) const;
  at::Tensor part_of(const at::Tensor& flat, size_t block, size_t part) const;

  std::string name_;
  std::vector<ParamBlock> blocks_;
  std::vector<int64_t> offsets_;  // of each block, in elements
  int64_t parameter_count_ = 0, decayed_numel_ = 0;
  at::Tensor flat_, grad_;
  std::vector<at::Tensor> leaves_;
};

}  // namespace dsengine
