#include "text/tokenizer_files.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <functional>

#include "base/directory.h"
#include "base/json.h"
#include "base/regular_file.h"
#include "text/jinja/jinja.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_json.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

TokenizerJson object_of(const std::string& text, const std::string& where) {
  TokenizerJson json = parse_tokenizer_json(text, where);
  DSE_CHECK_USER(json.is_object(), "{}: expected a JSON object", where);
  return json;
}

void check_vocabulary(const TokenizerJson& json, const std::string& where) {
  for (const auto& [token, id] : json.items())  // what else is in it is not shown
    DSE_CHECK_USER(id.is_number_integer(), "{}: not each of its values is a token's id", where);
}

// Each line of merges.txt joins two tokens of the vocabulary to a third.
void check_merges(const std::string& text, const TokenizerJson& vocabulary, const std::string& where) {
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    const bool merges = space != std::string::npos && vocabulary.contains(line.substr(0, space)) &&
                        vocabulary.contains(line.substr(space + 1)) &&
                        vocabulary.contains(line.substr(0, space) + line.substr(space + 1));
    DSE_CHECK_USER(merges, "{}: a line is no merge of two tokens of vocab.json", where);
  }
}

void check_template(const std::string& text, const std::string& where) {
  DSE_CHECK_USER(text.find("{{") != text.npos || text.find("{%") != text.npos, "{}: a chat template without any tag",
                 where);
  jinja::parse(text, where);
}

using Check = std::function<void(const std::string& text, const std::string& where)>;

std::vector<std::pair<const char*, Check>> checks(const fs::path& directory) {
  // An object of settings: empty, or with one at least that such a file has.
  const auto settings = [](std::initializer_list<const char*> known) -> Check {
    return [known = std::vector<const char*>(known)](const std::string& text, const std::string& where) {
      const TokenizerJson json = object_of(text, where);
      const auto there = [&](const char* key) { return json.contains(key); };
      DSE_CHECK_USER(json.empty() || std::ranges::any_of(known, there), "{}: none of its keys is one of such a file",
                     where);
    };
  };
  return {
      {"tokenizer.json",
       [](const std::string& text, const std::string& where) {
         const TokenizerJson json = object_of(text, where);
         DSE_CHECK_USER(json.contains("model") && json["model"].is_object() && json["model"].contains("vocab"),
                        "{}: no model with a vocabulary", where);
       }},
      {"tokenizer_config.json",
       settings({"tokenizer_class", "added_tokens_decoder", "bos_token", "eos_token", "pad_token", "unk_token",
                 "chat_template", "model_max_length", "add_bos_token", "add_eos_token", "add_prefix_space",
                 "clean_up_tokenization_spaces", "extra_special_tokens", "additional_special_tokens", "legacy",
                 "split_special_tokens"})},
      {"special_tokens_map.json",
       settings({"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
                 "additional_special_tokens", "extra_special_tokens"})},
      {"added_tokens.json",
       [](const std::string& text, const std::string& where) { check_vocabulary(object_of(text, where), where); }},
      {"vocab.json",
       [](const std::string& text, const std::string& where) { check_vocabulary(object_of(text, where), where); }},
      {"merges.txt",
       [directory](const std::string& text, const std::string& where) {
         const fs::path vocabulary = directory / "vocab.json";
         check_merges(text, object_of(read_text(vocabulary), vocabulary.string()), where);
       }},
      {"tokenizer.model",
       [](const std::string& text, const std::string& where) { parse_sentencepiece_model(text, where); }},
      {"chat_template.jinja", check_template},
  };
}

}  // namespace

std::vector<TokenizerFile> tokenizer_files(const fs::path& directory, std::vector<std::string>& left_out) {
  std::vector<TokenizerFile> files;
  const auto add = [&](const fs::path& name, const Check& check) {
    const std::string where = (directory / name).string();
    try {
      if (!file_exists(directory / name)) return;
      std::string text = read_text(directory / name);
      check(text, where);
      files.push_back({name, std::move(text)});
    } catch (const ReadError&) {
      throw;
    } catch (const UserError& error) {
      left_out.push_back(error.what());
    }
  };
  for (const auto& [name, check] : checks(directory)) add(name, check);
  const fs::path more = "additional_chat_templates";
  if (fs::is_directory(directory / more))
    for (const auto& entry : fs::directory_iterator(directory / more))
      if (entry.path().extension() == ".jinja") add(more / entry.path().filename(), check_template);
  return files;
}

void copy_tokenizer_files(const fs::path& from, const fs::path& to) {
  std::vector<std::string> left_out;
  for (const auto& file : tokenizer_files(from, left_out)) {
    make_directories((to / file.name).parent_path());
    write_text(to / file.name, file.text);
  }
  for (const auto& reason : left_out) spdlog::warn("model event=file_left_out reason=\"{}\"", reason);
}

}  // namespace dsengine
