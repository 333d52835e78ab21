// The pickle inside a file of torch.save, run on a machine that can build tensors, dictionaries, tuples
// and plain values, and nothing else: what refers to any other function or class is refused with one line
// naming it, before anything could be called.
//
//   std::vector<PickledTensor> tensors = parse_tensor_pickle(members.at("archive/data.pkl"),
//   "pytorch_model.bin"); tensors[0].name;      // "lm_head.weight" tensors[0].strides;   // of its view into
//   the storage, the archive's member "data/<tensors[0].storage>"
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "files/tensor_entry.h"

namespace dsengine {

// A named tensor as the pickle describes it: a strided view of a storage. Counts are in elements.
struct PickledTensor {
  std::string name;
  std::string storage;  // the member of the archive under data/
  Dtype dtype = Dtype::F32;
  uint64_t storage_elements = 0;
  uint64_t offset = 0;
  std::vector<int64_t> shape, strides;

  // One past the last element of the storage that the view touches; nothing where that passes 2^63-1.
  std::optional<uint64_t> end() const;
};

// The pickle of a state dict: a dictionary from text to tensor. Every tensor returned lies within its
// declared storage. UserError naming `where` for anything else.
std::vector<PickledTensor> parse_tensor_pickle(std::span<const std::byte> pickle, const std::string& where);

}  // namespace dsengine
