// Tokens that are found in the text as they stand, before any word is cut: "<|im_end|>", "<mask>".
//
//   AddedTokens added;
//   added.add({.id = 2, .content = "</s>", .special = true});
//   added.prepare(normalizer, "tokenizer.json");
//   for (auto [span, id] : added.find_raw("bye</s>")) ...   // {[0,3), -1}, {[3,7), 2}
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/normalizer.h"
#include "text/regex.h"
#include "text/string_map.h"

namespace dsengine {

struct AddedToken {
  int32_t id = -1;
  std::string content = {};
  bool single_word = false;  // not within a longer word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in the normalized text
  bool special = false;      // not part of what is said: skip_special_tokens drops it
  std::string shown = {};    // content, normalized where `normalized` says so: what decoding gives
};

class AddedTokens {
 public:
  struct Part {
    Span span;
    int32_t id;  // -1: ordinary text
  };

  void add(AddedToken token);  // replaces one with the same content
  // split_special_tokens of tokenizer_config.json: a special token that stands in a text is ordinary text, whoever
  // wrote it.
  void split_special(bool split) { split_special_ = split; }
  // To be called once, when all are added.
  void prepare(const Normalizer& normalizer, const std::string& where);

  // The parts of an input, and then of each ordinary part after its normalization. content: of each byte, whether it is
  // what a user wrote (not 0): special tokens have no byte there; "": none is.
  std::vector<Part> find_raw(std::string_view text, std::string_view content = {}) const {
    return find(text, content, raw_);
  }
  std::vector<Part> find_normalized(std::string_view text, std::string_view content = {}) const {
    return find(text, content, normalized_);
  }

  const AddedToken* with_content(std::string_view content) const;
  const AddedToken* with_id(int32_t id) const;
  int32_t highest_id() const { return by_id_.empty() ? -1 : by_id_.rbegin()->first; }

 private:
  // Finds the leftmost pattern, and the longest of those that begin there.
  struct Patterns {
    std::array<std::vector<size_t>, 256> lengths;  // by first byte; of the patterns, longest first
    StringMap<const AddedToken*> tokens;
    void add(const std::string& pattern, const AddedToken* token);
    const AddedToken* find(std::string_view text, std::string_view content, size_t from, Span& match) const;
  };

  std::vector<Part> find(std::string_view text, std::string_view content, const Patterns& patterns) const;
  bool stands_alone(std::string_view text, Span match) const;

  std::map<int32_t, AddedToken> by_id_;
  std::map<std::string, int32_t, std::less<>> ids_;
  Patterns raw_, normalized_;
  std::optional<Regex> word_;
  bool split_special_ = false;
};

}  // namespace dsengine
