// How tokenizer.json's "pre_tokenizer" cuts a normalized text into the words that BPE merges within.
//
//   PreTokenizer cut = make_pre_tokenizer({{"type", "WhitespaceSplit"}}, "tokenizer.json");
//   Pieces pieces = whole("two words", true);
//   cut(pieces);   // pieces.at(0) == "two", pieces.at(1) == "words"
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer_json.h"

namespace dsengine {

struct Pieces {
  std::string text;
  std::vector<Span> spans;  // of text; ascending, none of them empty
  bool at_start;            // the first piece begins where the whole input begins

  std::string_view at(size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

inline Pieces whole(std::string text, bool at_start) {
  const size_t size = text.size();
  return {std::move(text), size > 0 ? std::vector<Span>{{0, size}} : std::vector<Span>{}, at_start};
}

using PreTokenizer = std::function<void(Pieces&)>;

// null makes one that cuts nothing; an unsupported type is a UserError.
PreTokenizer make_pre_tokenizer(const TokenizerJson& json, const std::string& where);

}  // namespace dsengine
