// What stands beside a tokenizer's own file: tokens that it does not know, its bos, eos and pad, and whether they are
// put around a text.
//
//   SideFiles files("models/opt-125m");
//   add_side_tokens(parts, files);
//   set_named_tokens(parts, files);
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer_json.h"
#include "text/tokenizer_parts.h"

namespace dsengine {

// The directory's optional files; an absent one is an empty object.
struct SideFiles {
  explicit SideFiles(const std::filesystem::path& directory);

  // "bos_token" and the like: a string, an object with content, or null.
  TokenizerJson named_token(const std::string& name) const;
  // The tokens with a name as texts, with what transformers' classes take where no file names one: {"bos_token",
  // "<s>"}.
  std::vector<std::pair<std::string, std::string>> named_texts() const;

  // The class of transformers that reads the directory, without "Fast"; "" where no file names it.
  std::string tokenizer_class() const;

  // tokenizer_config.json. special_tokens_map.json stands over it, unless it lists added_tokens_decoder: then
  // transformers does not open the older file.
  TokenizerJson config;
  TokenizerJson added_tokens;  // added_tokens.json
  TokenizerJson model;         // config.json
  std::string where;           // the directory
};

// One entry of tokenizer.json's "added_tokens", or of what looks like it elsewhere.
AddedToken added_token(const TokenizerJson& json, TokenId id);

// The tokens that the files add.
void add_side_tokens(TokenizerParts& parts, const SideFiles& files);
// bos, eos and pad by name, or else by config.json's id.
void set_named_tokens(TokenizerParts& parts, const SideFiles& files);
// add_bos_token and add_eos_token, where no tokenizer.json decides.
void read_added_ends(TokenizerParts& parts, const SideFiles& files);

}  // namespace dsengine
