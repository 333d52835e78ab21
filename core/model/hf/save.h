// A model becomes a Hugging Face directory, which transformers reads.
//
//   save_model(model, "out/model", "models/tiny");      // weights in float32, the tokenizer of models/tiny
//   save_model(model, "out/half", {}, {.dtype = Dtype::BF16, .ends = {2}});
#pragma once
#include <filesystem>
#include <vector>

#include "files/tensor_entry.h"
#include "model/model.h"

namespace dsengine {

struct SaveOptions {
  Dtype dtype = Dtype::F32;
  uint64_t max_shard_bytes = 5'000'000'000;
  std::vector<int32_t> ends{};  // the tokens that end an answer; none: those that the model came with
};

// Into a folder that exists: config.json, weights with an adapter merged in, the generation_config.json of the model's
// origin, and the tokenizer's files from `tokenizer_from` where that is not empty. UserError where a file cannot be
// written or read.
void save_model(const Model& model, const std::filesystem::path& directory, const std::filesystem::path& tokenizer_from,
                const SaveOptions& options = {});

}  // namespace dsengine
