// Where a parameter begins in its model's own files: the coordinates in which weights and moments are kept, as [out,
// in] whatever those files have. They do not depend on how this build fuses, orders and aligns parameters.
//
//   place_of(spec)            // "model.layers.0.self_attn.q_proj.weight", or "transformer.h.0.attn.c_attn.weight@768"
//   for_each_placed(storage, storage.grad(), [](const std::string& place, const at::Tensor& rows) { … });
#pragma once
#include <functional>
#include <string>

#include "param/storage.h"

namespace dsengine {

// The tensor, and behind an @ the row of it where the parameter begins, where it shares the tensor with others.
std::string place_of(const ParamSpec& spec);

// What is trained of a storage, parameter by parameter: the rows of a buffer that lies as its trained span does (the
// values, a moment, an average), dense.
void for_each_placed(const ParamStorage& storage, const at::Tensor& trained_span,
                     const std::function<void(const std::string& place, const at::Tensor& rows)>& f);

}  // namespace dsengine
