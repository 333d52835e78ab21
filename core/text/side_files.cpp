#include "text/side_files.h"

#include "base/regular_file.h"

#include <algorithm>
#include <set>

namespace dsengine {
namespace {

constexpr const char *kExtra = "extra_special_tokens", *kAdditional = "additional_special_tokens",
                     *kDecoder = "added_tokens_decoder";

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

// What transformers' classes take where the files name no token.
TokenizerJson class_defaults(const std::string& of) {
  const std::string end = "<|endoftext|>";
  if (of.starts_with("Llama") || of.starts_with("CodeLlama"))
    return {{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
  if (of.starts_with("Gemma"))
    return {{"unk_token", "<unk>"},
            {"bos_token", "<bos>"},
            {"eos_token", "<eos>"},
            {"pad_token", "<pad>"},
            {"mask_token", "<mask>"}};
  if (of.starts_with("Qwen2")) return {{"unk_token", end}, {"eos_token", end}, {"pad_token", end}};
  if (of.starts_with("GPT2") || of.starts_with("GPTNeoX"))
    return {{"unk_token", end}, {"bos_token", end}, {"eos_token", end}};
  return TokenizerJson::object();
}

// The keys that name a token, in the order in which transformers adds them: its own, then a model's ("image_token").
std::vector<std::string> token_names(const SideFiles& files) {
  std::vector<std::string> names{"bos_token", "eos_token", "unk_token", "sep_token",
                                 "pad_token", "cls_token", "mask_token"};
  const auto is_token = [](const TokenizerJson& value) {
    return value.is_string() || (value.is_object() && value.contains("__type"));
  };
  for (const auto& [key, value] : files.config.items())
    if (key.ends_with("_token") && is_token(value) && std::ranges::count(names, key) == 0) names.push_back(key);
  return names;
}

}  // namespace

SideFiles::SideFiles(const std::filesystem::path& directory)
    : config(read(directory / "tokenizer_config.json")),
      added_tokens(read(directory / "added_tokens.json")),
      model(read(directory / "config.json")),
      where(directory.string()) {
  if (value_or(config, kExtra, TokenizerJson()).empty() && config.contains(kAdditional)) {
    config[kExtra] = config[kAdditional];
    config.erase(kAdditional);
  }
  // A table of extra tokens gives them names.
  if (const auto extra = value_or(config, kExtra, TokenizerJson()); extra.is_object()) {
    config.erase(kExtra);
    for (const auto& [key, value] : extra.items()) config[key] = value;
  }
  if (config.contains(kDecoder)) return;
  const TokenizerJson older = read(directory / "special_tokens_map.json");
  for (const auto& [key, value] : older.items()) {
    if (key != kExtra || !value.is_array()) {
      config[key] = value;
      continue;
    }
    TokenizerJson& tokens = config[kExtra];
    for (const auto& token : value)
      if (std::ranges::find(tokens, token) == tokens.end()) tokens.push_back(token);
  }
}

TokenizerJson SideFiles::named_token(const std::string& name) const {
  const auto found = config.find(name);
  return found == config.end() ? TokenizerJson() : *found;
}

std::vector<std::pair<std::string, std::string>> SideFiles::named_texts() const {
  std::vector<std::pair<std::string, std::string>> texts;
  const TokenizerJson defaults = class_defaults(tokenizer_class());
  for (const auto& name : token_names(*this)) {
    const TokenizerJson token =
        config.contains(name) ? config[name] : value_or(defaults, name.c_str(), TokenizerJson());
    if (!token.is_null()) texts.emplace_back(name, special_token(token).content);
  }
  return texts;
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
  const auto extras = value_or(files.config, kExtra, value_or(files.config, kAdditional, TokenizerJson::array()));
  const auto names = token_names(files);
  std::set<std::string> special;
  for (const auto& name : names)
    if (const auto token = files.named_token(name); !token.is_null()) special.insert(special_token(token).content);
  for (const auto& token : extras) special.insert(special_token(token).content);

  std::vector<AddedToken> declared;
  const auto by_id = value_or(files.config, kDecoder, TokenizerJson::object());
  for (const auto& [id, json] : by_id.items()) {
    declared.push_back(added_token(json, std::stoi(id)));
  }
  for (const auto& [content, id] : files.added_tokens.items()) {
    if (files.config.contains(kDecoder)) break;  // transformers does not open the older file where the newer list is
    const bool is_special = special.contains(content);
    declared.push_back({.id = token_id(id, files.where + "/added_tokens.json"),
                        .content = content,
                        .normalized = !is_special,
                        .special = is_special});
  }
  std::ranges::sort(declared, {}, &AddedToken::id);
  for (auto& token : declared) {
    register_token(parts, std::move(token));
  }
  for (const auto& name : names)
    if (const auto token = files.named_token(name); !token.is_null()) register_token(parts, special_token(token));
  for (const auto& token : extras) register_token(parts, special_token(token));
}

void set_named_tokens(TokenizerParts& parts, const SideFiles& files) {
  const auto find = [&](const std::string& name) -> std::optional<TokenId> {
    if (const TokenizerJson token = files.named_token(name + "_token"); !token.is_null()) {
      return parts.id_of(special_token(token).content);
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
}

void read_added_ends(TokenizerParts& parts, const SideFiles& files) {
  if (value_or(files.config, "add_bos_token", false) && parts.bos) parts.prefix = {*parts.bos};
  if (value_or(files.config, "add_eos_token", false) && parts.eos) parts.suffix = {*parts.eos};
}

}  // namespace dsengine
