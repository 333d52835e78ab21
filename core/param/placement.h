// Where a parameter begins in its model's own files: the coordinates in which weights and moments are kept, as [out,
// in] whatever those files have. They do not depend on how this build fuses, orders and aligns parameters.
//
//   place_of(spec)            // "model.layers.0.self_attn.q_proj.weight", or "transformer.h.0.attn.c_attn.weight@768"
//   read_placed(unit, moment, [&](const auto& place, const auto& rows) { kept[place] = rows.clone(); });
//   write_placed(unit, moment, [&](const auto& place, const auto& rows) { rows.copy_(kept.at(place)); });
#pragma once
#include <functional>
#include <string>

#include "param/storage.h"

namespace dsengine {

// The tensor, and behind an @ the row of it where the parameter begins, where it shares the tensor with others.
std::string place_of(const ParamSpec& spec);

using PlacedRows = std::function<void(const std::string& place, const at::Tensor& rows)>;

// What is trained of a storage, parameter by parameter: f gets the parameter's elements of a buffer that lies as the
// trained span does (the values, a moment, an average), in the parameter's shape and dense. They are to be read: a view
// of the buffer, or a copy where its block is interleaved.
void read_placed(const ParamStorage& storage, const at::Tensor& trained_span, const PlacedRows& f);
// The same, and what f leaves in the rows is the buffer's.
void write_placed(const ParamStorage& storage, const at::Tensor& trained_span, const PlacedRows& f);

// Of one parameter's elements, or of its rows, as part_rows (layout.h) has them: f gets them in that shape and dense.
void read_rows(const at::Tensor& part, at::IntArrayRef shape, const std::string& name, const PlacedRows& f);
void write_rows(const at::Tensor& part, at::IntArrayRef shape, const std::string& name, const PlacedRows& f);

}  // namespace dsengine
