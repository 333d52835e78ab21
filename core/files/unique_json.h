// JSON in which every key of an object stands once: a file that gives a tensor twice is refused rather
// than read one way or the other. Keys are looked up in logarithmic time, for indices of 10^5 tensors.
//
//   const UniqueJson header = parse_unique_json(text, "model.safetensors: header");
//   const auto shape = header.at("lm_head.weight").at("shape");
//   // ... UserError: header: key 'lm_head.weight' stands twice
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dsengine {

using UniqueJson = nlohmann::json;

// UserError where the text is not JSON, nests deeper than 16 levels, or repeats a key.
UniqueJson parse_unique_json(std::string_view text, const std::string& where);

}  // namespace dsengine
