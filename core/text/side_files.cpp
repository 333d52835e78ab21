#include "text/side_files.h"

#include "base/regular_file.h"

#include <algorithm>

namespace dsengine {
namespace {

TokenizerJson read(const std::filesystem::path& path) {
  return file_exists(path) ? read_tokenizer_json(path) : TokenizerJson::object();
}

// A token that a side file names as special: a string, or an object.
AddedToken special_token(const TokenizerJson& json) {
  const TokenizerJson object = json.is_string() ? TokenizerJson{{"content", json}} : json;
  AddedToken token = added_token(object, -1);
  token.normalized = value_or(object, "normalized", false);
  token.special = true;
  return token;
}

// Registers a token that a side file names, unless it is known: under its id in the vocabulary, or the next
// free one, as Hugging Face does whatever id the file gives.
TokenId register_token(TokenizerParts& parts, AddedToken token) {
  if (const AddedToken* known = parts.added.with_content(token.content)) return known->id;
  token.id = parts.bpe.id_of(token.content).value_or(std::max(parts.bpe.highest_id(), parts.added.highest_id()) + 1);
  const TokenId id = token.id;
  parts.added.add(std::move(token));
  return id;
}

}  // namespace

SideFiles::SideFiles(const std::filesystem::path& directory)
    : config(read(directory / "tokenizer_config.json")),
      special_tokens(read(directory / "special_tokens_map.json")),
      added_tokens(read(directory / "added_tokens.json")),
      model(read(directory / "config.json")),
      where(directory.string()) {}

TokenizerJson SideFiles::named_token(const std::string& name) const {
  for (const TokenizerJson* file : {&config, &special_tokens}) {
    if (const auto found = file->find(name); found != file->end() && !found->is_null()) return *found;
  }
  return nullptr;
}

std::string SideFiles::tokenizer_class() const {
  auto name = value_or<std::string>(config, "tokenizer_class", value_or<std::string>(model, "tokenizer_class", ""));
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

AddedToken added_token(const TokenizerJson& json, TokenId id) {
  const bool special = value_or(json, "special", false);
  return {.id = id,
          .content = json.at("content").get<std::string>(),
          .single_word = value_or(json, "single_word", false),
          .lstrip = value_or(json, "lstrip", false),
          .rstrip = value_or(json, "rstrip", false),
          .normalized = value_or(json, "normalized", !special),
          .special = special};
}

void add_side_tokens(TokenizerParts& parts, const SideFiles& files) {
  std::vector<AddedToken> declared;
  const auto by_id = value_or(files.config, "added_tokens_decoder", TokenizerJson::object());
  for (const auto& [id, json] : by_id.items()) {
    declared.push_back(added_token(json, std::stoi(id)));
  }
  for (const auto& [content, id] : files.added_tokens.items()) {
    if (!by_id.empty()) break;  // transformers does not open the older file where the newer list is
    declared.push_back(
        {.id = token_id(id, files.where + "/added_tokens.json"), .content = content, .normalized = true});
  }
  std::ranges::sort(declared, {}, &AddedToken::id);
  for (auto& token : declared) {
    register_token(parts, std::move(token));
  }
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    for (const TokenizerJson* file : {&files.config, &files.special_tokens}) {
      for (const auto& json : value_or(*file, key, TokenizerJson::array())) {
        register_token(parts, special_token(json));
      }
    }
  }
}

void add_named_tokens(TokenizerParts& parts, const SideFiles& files) {
  const auto find = [&](const std::string& name) -> std::optional<TokenId> {
    if (const TokenizerJson token = files.named_token(name + "_token"); !token.is_null()) {
      return register_token(parts, special_token(token));
    }
    if (files.config.contains(name + "_token")) return std::nullopt;  // null on purpose
    const auto found = files.model.find(name + "_token_id");
    const auto number = found == files.model.end() ? std::nullopt : whole_number(*found, 0, INT32_MAX);
    if (!number) return std::nullopt;
    const auto id = TokenId(*number);
    const AddedToken* known = parts.added.with_id(id);
    const std::string content = known ? known->content : std::string(parts.bpe.token_of(id));
    if (content.empty()) return std::nullopt;
    return register_token(parts, special_token(content));
  };
  parts.bos = find("bos");
  parts.eos = find("eos");
  parts.pad = find("pad");
  for (const char* name : {"unk_token", "sep_token", "cls_token", "mask_token"}) {
    if (const TokenizerJson token = files.named_token(name); !token.is_null()) {
      register_token(parts, special_token(token));
    }
  }
}

void read_added_ends(TokenizerParts& parts, const SideFiles& files) {
  if (value_or(files.config, "add_bos_token", false) && parts.bos) parts.prefix = {*parts.bos};
  if (value_or(files.config, "add_eos_token", false) && parts.eos) parts.suffix = {*parts.eos};
}

}  // namespace dsengine
