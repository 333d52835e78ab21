// What holds of every tokenizer, whatever its file says, checked on some texts.
//
//   check_tokenizer(Tokenizer::from_json(text, "input"));
#pragma once
#include <cstdlib>
#include <string>
#include <vector>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace dsengine {

inline void check_tokenizer(const Tokenizer& tokenizer) {
  for (const char* text :
       {"", " ", "Hello <s> world  x</s>\n\n12", "e\u0301\u00a0\u2581\U0001F600a", "aaab aab <b> "}) {
    std::vector<TokenId> ids = tokenizer.encode(text);
    for (const TokenId id : ids)
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    for (TokenId id = 0; id < 24; ++id) ids.push_back(id * 7 % 31);
    for (const bool skip : {false, true}) {
      const std::string decoded = tokenizer.decode(ids, skip);
      if (!is_valid_utf8(decoded)) std::abort();
      StreamDecoder stream(tokenizer, skip);
      std::string streamed;
      for (const TokenId id : ids) streamed += stream.push(id);
      if (streamed + stream.finish() != decoded) std::abort();
    }
  }
}

}  // namespace dsengine
