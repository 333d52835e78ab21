// Reads a tokenizer's parts from the files of a model's directory, whichever of their forms it has.
//
//   TokenizerParts parts = read_tokenizer_parts("models/opt-125m");
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "text/tokenizer_parts.h"

namespace dsengine {

// The directory has a tokenizer.json, a vocab.json and a merges.txt, or a tokenizer.model; damaged files are a
// UserError.
TokenizerParts read_tokenizer_parts(const std::filesystem::path& directory);
// A tokenizer.json alone.
TokenizerParts parse_tokenizer_parts(std::string_view tokenizer_json, const std::string& where);

}  // namespace dsengine
