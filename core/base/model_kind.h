// What a model's head gives.
//
//   if (stored_kind(directory) == ModelKind::value) …    // a directory's, files/hf_directory.h
#pragma once

namespace dsengine {

enum class ModelKind {
  language,  // logits over the vocabulary
  value      // one number per position: a reward model, a critic
};

}  // namespace dsengine
