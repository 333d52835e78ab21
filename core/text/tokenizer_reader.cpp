#include "text/tokenizer_reader.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "base/check.h"
#include "base/printable.h"
#include "base/regular_file.h"
#include "text/sentencepiece_model.h"
#include "text/side_files.h"
#include "text/tokenizer_json.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

Bpe::Vocabulary vocabulary_of(const TokenizerJson& json, const std::string& where) {
  DSE_CHECK_USER(json.is_object(), "{}: the vocabulary is no table of tokens and their ids", where);
  Bpe::Vocabulary vocabulary;
  vocabulary.reserve(json.size());
  for (const auto& [token, id] : json.items()) vocabulary.emplace_back(token, token_id(id, where));
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
  return Bpe(vocabulary_of(json.at("vocab"), where), merges, options, where);
}

// Far more than any post-processor adds to a text; each adds to all texts.
constexpr size_t kMostAddedTokens = 1000;

// Puts what a post-processor adds around what is there.
void surround(TokenizerParts& parts, const std::vector<TokenId>& before, const std::vector<TokenId>& after,
              const std::string& where) {
  DSE_CHECK_USER(parts.prefix.size() + parts.suffix.size() + before.size() + after.size() <= kMostAddedTokens,
                 "{}: post_processor adds more than {} tokens to a text", where, kMostAddedTokens);
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
      (sequences == 0 ? before : after).push_back(token_id(id, where));
      DSE_CHECK_USER(before.size() + after.size() <= kMostAddedTokens,
                     "{}: post_processor adds more than {} tokens to a text", where, kMostAddedTokens);
    }
  }
  DSE_CHECK_USER(sequences == 1, "{}: post_processor's single template must hold one Sequence, not {}", where,
                 sequences);
  surround(parts, before, after, where);
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
    parts.added.add(added_token(token, token_id(token.at("id"), where)));
  }
  return parts;
}

bool is_byte_level(const TokenizerJson& part) {
  if (!part.is_structured()) return false;
  if (part.is_object() && value_or<TokenizerJson>(part, "type", nullptr) == "ByteLevel") return true;
  return std::any_of(part.begin(), part.end(), is_byte_level);
}

// A tokenizer.json as transformers reads it: one whose class is LlamaTokenizer gives its vocabulary and merges alone,
// unless its alphabet is bytes (LLaMA 3).
TokenizerParts read_whole(const fs::path& path, const SideFiles& files) {
  TokenizerJson json = read_tokenizer_json(path);
  const auto form = sentencepiece_form(files.tokenizer_class(), value_or<std::string>(files.model, "model_type", ""));
  const auto part = [&](const char* key) { return value_or(json, key, TokenizerJson()); };
  const bool byte_level = is_byte_level(part("pre_tokenizer")) || is_byte_level(part("decoder"));
  if (form == SentencePieceForm::llama && !byte_level && part("model").is_object()) set_llama_parts(json, files.config);
  return read_tokenizer(json, path.string());
}

// LLaMA 2's form: what transformers adds to the model's pieces stands in tokenizer_config.json, or in its code.
TokenizerParts read_sentencepiece(const fs::path& path, SideFiles& files) {
  const SentencePieceModel model = read_sentencepiece_model(path);
  const SentencePieceForm form =
      sentencepiece_form(files.tokenizer_class(), value_or<std::string>(files.model, "model_type", ""));
  const TokenizerJson names = named_tokens_of(model, form);
  for (const auto& [name, token] : names.items()) {
    if (!files.config.contains(name)) files.config[name] = token;
  }
  return read_tokenizer(tokenizer_json_of(model, form, files.config, path.string()), path.string());
}

// What stands in transformers' code, not in a file, for the classes that read vocab.json and merges.txt.
struct ByteLevelForm {
  TokenizerJson normalizer, pre_tokenizer;
  std::vector<const char*> named;  // what "<|endoftext|>" is where the files say nothing
};

ByteLevelForm byte_level_form(const SideFiles& files, const std::string& where) {
  const bool prefix = value_or(files.config, "add_prefix_space", false);
  const TokenizerJson byte_level{{"type", "ByteLevel"}, {"add_prefix_space", prefix}}, nfc{{"type", "NFC"}};
  const std::string name = files.tokenizer_class();
  if (name.empty() || name == "GPT2Tokenizer") return {nullptr, byte_level, {"bos_token", "eos_token", "unk_token"}};
  if (name == "GPTNeoXTokenizer") return {nfc, byte_level, {"bos_token", "eos_token", "unk_token"}};
  if (name != "Qwen2Tokenizer") {
    unsupported(where, "a tokenizer without tokenizer.json", name, "GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer");
  }
  constexpr const char* words =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const TokenizerJson split{{"type", "Split"}, {"pattern", {{"Regex", words}}}, {"behavior", "Isolated"}};
  const TokenizerJson bytes{{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"use_regex", false}};
  const TokenizerJson both = TokenizerJson::array({split, bytes});
  return {nfc, {{"type", "Sequence"}, {"pretokenizers", both}}, {"eos_token", "pad_token", "unk_token"}};
}

TokenizerParts read_vocabulary_and_merges(const fs::path& directory, SideFiles& files) {
  const fs::path vocabulary = directory / "vocab.json", merges_file = directory / "merges.txt";
  Bpe::Merges merges;
  std::istringstream lines(read_text(merges_file));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(merge_of(line, merges_file.string()));
  }
  const std::string where = vocabulary.string();
  const ByteLevelForm form = byte_level_form(files, directory.string());
  TokenizerParts parts{.normalizer = make_normalizer(form.normalizer, where),
                       .pre_tokenizer = make_pre_tokenizer(form.pre_tokenizer, where),
                       .bpe = Bpe(vocabulary_of(read_tokenizer_json(vocabulary), where), merges, {}, where),
                       .decoder = make_decoder({{"type", "ByteLevel"}}, where)};
  for (const char* name : form.named) {
    if (!files.config.contains(name) && parts.bpe.id_of("<|endoftext|>")) files.config[name] = "<|endoftext|>";
  }
  return parts;
}

// When every token is known.
void complete(TokenizerParts& parts, const std::string& where) {
  for (const auto* ends : {&parts.prefix, &parts.suffix}) {
    for (const TokenId id : *ends) {
      DSE_CHECK_USER(parts.added.with_id(id) || !parts.bpe.token_of(id).empty(),
                     "{}: post_processor adds token {}, which is not in the vocabulary", where, id);
    }
  }
  parts.added.prepare(parts.normalizer, where);
}

TokenizerParts read_parts(const fs::path& directory) {
  SideFiles files(directory);
  const fs::path file = directory / "tokenizer.json", pieces = directory / "tokenizer.model";
  const bool whole = file_exists(file);
  const bool merges = !whole && file_exists(directory / "vocab.json") && file_exists(directory / "merges.txt");
  TokenizerParts parts = whole    ? read_whole(file, files)
                         : merges ? read_vocabulary_and_merges(directory, files)
                                  : read_sentencepiece(pieces, files);
  add_side_tokens(parts, files);
  set_named_tokens(parts, files);
  parts.added.split_special(value_or(files.config, "split_special_tokens", false));
  if (!whole) read_added_ends(parts, files);
  complete(parts, (whole ? file : merges ? directory : pieces).string());
  return parts;
}

template <class Read>
TokenizerParts as_user_errors(const std::string& where, Read&& read) {
  const auto not_as_expected = [&](const char* what) -> TokenizerParts {
    user_error(error_line("{}: the tokenizer's files are not as expected: {}", where, without_code(what)));
  };
  try {
    return read();
  } catch (const TokenizerJson::exception& error) {
    return not_as_expected(error.what());
  } catch (const std::invalid_argument& error) {  // std::stoi of an added token's id
    return not_as_expected(error.what());
  } catch (const std::out_of_range& error) {
    return not_as_expected(error.what());
  }
}

}  // namespace

TokenizerParts read_tokenizer_parts(const fs::path& directory) {
  return as_user_errors(directory.string(), [&] { return read_parts(directory); });
}

TokenizerParts parse_tokenizer_parts(std::string_view tokenizer_json, const std::string& where) {
  return as_user_errors(where, [&] {
    TokenizerParts parts = read_tokenizer(parse_tokenizer_json(tokenizer_json, where), where);
    complete(parts, where);
    return parts;
  });
}

}  // namespace dsengine
