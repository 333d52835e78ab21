#include "text/tokenizer_parts.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "base/check.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_json.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

// The directory's optional files; an absent one is an empty object.
struct SideFiles {
  explicit SideFiles(const fs::path& directory)
      : config(read(directory / "tokenizer_config.json")),
        special_tokens(read(directory / "special_tokens_map.json")),
        added_tokens(read(directory / "added_tokens.json")),
        model(read(directory / "config.json")) {}

  static TokenizerJson read(const fs::path& path) {
    return fs::exists(path) ? read_tokenizer_json(path) : TokenizerJson::object();
  }

  // "bos_token" and the like: a string, an object with content, or null.
  TokenizerJson named_token(const std::string& name) const {
    for (const TokenizerJson* file : {&config, &special_tokens}) {
      if (const auto found = file->find(name); found != file->end() && !found->is_null()) return *found;
    }
    return nullptr;
  }

  TokenizerJson config, special_tokens, added_tokens, model;
};

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

void add_side_tokens(TokenizerParts& parts, const SideFiles& files) {
  std::vector<AddedToken> declared;
  const auto by_id = value_or(files.config, "added_tokens_decoder", TokenizerJson::object());
  for (const auto& [id, json] : by_id.items()) {
    declared.push_back(added_token(json, std::stoi(id)));
  }
  for (const auto& [content, id] : files.added_tokens.items()) {
    declared.push_back({.id = id.get<TokenId>(), .content = content, .normalized = true});
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

// bos, eos and pad by name (tokenizer_config.json, special_tokens_map.json), or else by config.json's id.
void add_named_tokens(TokenizerParts& parts, const SideFiles& files) {
  const auto find = [&](const std::string& name) -> std::optional<TokenId> {
    if (const TokenizerJson token = files.named_token(name + "_token"); !token.is_null()) {
      return register_token(parts, special_token(token));
    }
    if (files.config.contains(name + "_token")) return std::nullopt;  // null on purpose
    const auto found = files.model.find(name + "_token_id");
    if (found == files.model.end() || !found->is_number_integer()) return std::nullopt;
    const auto id = found->get<TokenId>();
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

Bpe::Vocabulary vocabulary_of(const TokenizerJson& json) {
  Bpe::Vocabulary vocabulary;
  vocabulary.reserve(json.size());
  for (const auto& [token, id] : json.items()) vocabulary.emplace_back(token, id.get<TokenId>());
  return vocabulary;
}

std::pair<std::string, std::string> merge_of(const std::string& line, const std::string& where) {
  const size_t space = line.find(' ');
  DSE_CHECK_USER(space != std::string::npos && line.find(' ', space + 1) == std::string::npos,
                 "{}: merge '{}' is not two tokens with a space between", where, line);
  return {line.substr(0, space), line.substr(space + 1)};
}

Bpe read_bpe(const TokenizerJson& json, const std::string& where) {
  const auto type = value_or<std::string>(json, "type", "BPE");  // older files leave it out
  if (type != "BPE") unsupported(where, "model", type, "BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    DSE_CHECK_USER(value_or<std::string>(json, key, "").empty(), "{}: model.{} is not supported", where, key);
  }
  DSE_CHECK_USER(value_or(json, "dropout", 0.0) == 0.0, "{}: model.dropout is not supported", where);
  Bpe::Merges merges;
  for (const auto& merge : json.at("merges")) {
    merges.push_back(merge.is_string() ? merge_of(merge.get<std::string>(), where)
                                       : merge.get<std::pair<std::string, std::string>>());
  }
  Bpe::Options options{.fuse_unk = value_or(json, "fuse_unk", false),
                       .byte_fallback = value_or(json, "byte_fallback", false),
                       .ignore_merges = value_or(json, "ignore_merges", false)};
  if (json.contains("unk_token") && !json["unk_token"].is_null()) {
    options.unk_token = json["unk_token"].get<std::string>();
  }
  return Bpe(vocabulary_of(json.at("vocab")), merges, options, where);
}

// Puts what a post-processor adds around what is there.
void surround(TokenizerParts& parts, const std::vector<TokenId>& before, const std::vector<TokenId>& after) {
  parts.prefix.insert(parts.prefix.begin(), before.begin(), before.end());
  parts.suffix.insert(parts.suffix.end(), after.begin(), after.end());
}

void read_template(TokenizerParts& parts, const TokenizerJson& json, const std::string& where) {
  std::vector<TokenId> before, after;
  int sequences = 0;
  for (const auto& piece : json.at("single")) {
    if (piece.contains("Sequence")) {
      ++sequences;
      continue;
    }
    const auto& name = piece.at("SpecialToken").at("id").get<std::string>();
    for (const auto& id : json.at("special_tokens").at(name).at("ids")) {
      (sequences == 0 ? before : after).push_back(id.get<TokenId>());
    }
  }
  DSE_CHECK_USER(sequences == 1, "{}: post_processor's single template must hold one Sequence, not {}", where,
                 sequences);
  surround(parts, before, after);
}

void read_post_processor(TokenizerParts& parts, const TokenizerJson& json, const std::string& where) {
  if (json.is_null()) return;
  const std::string type = type_of(json);
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "TemplateProcessing") return read_template(parts, json, where);
  if (type == "Sequence") {
    for (const auto& part : json.at("processors")) read_post_processor(parts, part, where);
    return;
  }
  unsupported(where, "post_processor", type, "Sequence, TemplateProcessing, ByteLevel");
}

TokenizerParts read_tokenizer(const TokenizerJson& json, const std::string& where) {
  const auto part = [&](const char* key) { return value_or(json, key, TokenizerJson()); };
  TokenizerParts parts{.normalizer = make_normalizer(part("normalizer"), where),
                       .pre_tokenizer = make_pre_tokenizer(part("pre_tokenizer"), where),
                       .bpe = read_bpe(json.at("model"), where),
                       .decoder = make_decoder(part("decoder"), where)};
  read_post_processor(parts, part("post_processor"), where);
  for (const auto& token : value_or(json, "added_tokens", TokenizerJson::array())) {
    parts.added.add(added_token(token, token.at("id").get<TokenId>()));
  }
  return parts;
}

// LLaMA 2's form: what transformers adds to the model's pieces stands in tokenizer_config.json, or in its code.
TokenizerParts read_sentencepiece(const fs::path& path, SideFiles& files) {
  const SentencePieceModel model = read_sentencepiece_model(path);
  const SentencePieceForm form = sentencepiece_form(files.config, files.model);
  const TokenizerJson names = named_tokens_of(model, form);
  for (const auto& [name, token] : names.items()) {
    if (!files.config.contains(name) && !files.special_tokens.contains(name)) files.config[name] = token;
  }
  return read_tokenizer(tokenizer_json_of(model, form, files.config, path.string()), path.string());
}

// GPT-2's and OPT's form: the byte-level defaults are in Hugging Face's code, not in a file.
TokenizerParts read_vocabulary_and_merges(const fs::path& directory, SideFiles& files) {
  const fs::path vocabulary = directory / "vocab.json", merges_file = directory / "merges.txt";
  Bpe::Merges merges;
  std::istringstream lines(read_text(merges_file));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(merge_of(line, merges_file.string()));
  }
  const std::string where = vocabulary.string();
  const TokenizerJson byte_level{{"type", "ByteLevel"},
                                 {"add_prefix_space", value_or(files.config, "add_prefix_space", false)}};
  TokenizerParts parts{.normalizer = make_normalizer(nullptr, where),
                       .pre_tokenizer = make_pre_tokenizer(byte_level, where),
                       .bpe = Bpe(vocabulary_of(read_tokenizer_json(vocabulary)), merges, {}, where),
                       .decoder = make_decoder(byte_level, where)};
  for (const char* name : {"bos_token", "eos_token", "unk_token"}) {
    const bool says = files.config.contains(name) || files.special_tokens.contains(name);
    if (!says && parts.bpe.id_of("<|endoftext|>")) files.config[name] = "<|endoftext|>";  // GPT-2's default
  }
  return parts;
}

void read_added_ends(TokenizerParts& parts, const SideFiles& files) {
  if (value_or(files.config, "add_bos_token", false) && parts.bos) parts.prefix = {*parts.bos};
  if (value_or(files.config, "add_eos_token", false) && parts.eos) parts.suffix = {*parts.eos};
}

TokenizerParts read_parts(const fs::path& directory) {
  SideFiles files(directory);
  const fs::path file = directory / "tokenizer.json", pieces = directory / "tokenizer.model";
  const bool whole = fs::exists(file);
  const bool merges = !whole && fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt");
  TokenizerParts parts = whole    ? read_tokenizer(read_tokenizer_json(file), file.string())
                         : merges ? read_vocabulary_and_merges(directory, files)
                                  : read_sentencepiece(pieces, files);
  add_side_tokens(parts, files);
  add_named_tokens(parts, files);
  if (!whole) read_added_ends(parts, files);
  parts.added.prepare(parts.normalizer, (whole ? file : merges ? directory : pieces).string());
  return parts;
}

}  // namespace

TokenizerJson read_tokenizer_json(const fs::path& path) {
  constexpr int most_depth = 32;
  const auto depth_guard = [&](int depth, TokenizerJson::parse_event_t, TokenizerJson&) {
    DSE_CHECK_USER(depth <= most_depth, "{}: JSON nested deeper than {} levels", path.string(), most_depth);
    return true;
  };
  try {
    return TokenizerJson::parse(read_text(path), depth_guard);
  } catch (const TokenizerJson::parse_error& error) {
    throw UserError(fmt::format("{}: not valid JSON: {}", path.string(), error.what()));
  }
}

TokenizerParts read_tokenizer_parts(const fs::path& directory) {
  const auto not_as_expected = [&](const char* what) -> TokenizerParts {
    user_error(fmt::format("{}: the tokenizer's files are not as expected: {}", directory.string(), what));
  };
  try {
    return read_parts(directory);
  } catch (const TokenizerJson::exception& error) {
    return not_as_expected(error.what());
  } catch (const std::invalid_argument& error) {  // std::stoi of an added token's id
    return not_as_expected(error.what());
  } catch (const std::out_of_range& error) {
    return not_as_expected(error.what());
  }
}

}  // namespace dsengine
