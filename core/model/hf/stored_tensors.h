// A checkpoint's tensors and the parameters that lie in them: as they are, transposed, or as rows of one that several
// share (q, k and v in one "qkv_proj.weight", per head or one after the other).
//
//   for (auto& stored : stored_tensors(pieces_of(model.tensors()))) stored.read(weights, stored.name, "x");
//   at::Tensor whole = stored.joined();                    // what a checkpoint holds
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "files/weights.h"
#include "model/model.h"

namespace dsengine {

struct StoredPiece {
  const ParamSpec* spec;
  at::Tensor tensor;  // the parameter's values, as ParamLayout::part_of has them
};

std::vector<StoredPiece> pieces_of(const std::vector<Model::NamedTensor>& tensors);

struct StoredTensor {
  std::string name;
  std::vector<StoredPiece> pieces;
  std::vector<size_t> indices;  // of the pieces, in the list that they come from

  std::vector<int64_t> shape() const;
  // UserError where the tensor `as` of a directory that errors name `where` has another shape.
  void check(const WeightDirectory& weights, const std::string& as, const std::string& where) const;
  // Into the pieces, from the tensor `as` of a directory that errors name `where`. Takes no memory of the tensor's
  // size. UserError where its shape is another. Of pieces without values that is all that is looked at.
  void read(const WeightDirectory& weights, const std::string& as, const std::string& where) const;
  // float32 and contiguous: the one piece itself where it is all of it.
  at::Tensor joined() const;
  // The other way: into the pieces, from a whole as it is used, [out, in], whatever the checkpoint has.
  void split(const at::Tensor& whole) const;
};

// In the order of their first pieces.
std::vector<StoredTensor> stored_tensors(const std::vector<StoredPiece>& pieces);

}  // namespace dsengine
