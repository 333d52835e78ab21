// What tokenizer.json's "normalizer" does to a text before it is cut into words: Unicode normal forms,
// lower case, a prefix, replacements.
//
//   Normalizer nfc = make_normalizer({{"type", "NFC"}}, "tokenizer.json");
//   Segment segment{"e\u0301"};
//   nfc(segment);   // segment.text == "é"
#pragma once
#include <functional>
#include <string>

#include "text/regex.h"
#include "text/tokenizer_json.h"

namespace dsengine {

struct Segment {
  std::string text;
  // Its first character stands for the first character of the whole input: Metaspace asks.
  bool at_start = true;
};

using Normalizer = std::function<void(Segment&)>;

// null makes one that changes nothing; an unsupported type is a UserError.
Normalizer make_normalizer(const TokenizerJson& json, const std::string& where);

// tokenizer.json's {"String": …} or {"Regex": …}.
Regex make_pattern(const TokenizerJson& json, const std::string& where);
std::string replace_all(const std::string& text, const Regex& pattern, const std::string& content);

}  // namespace dsengine
