// tokenizer.json's "decoder": from tokens back to text.
//
//   auto decoder = make_decoder({{"type", "ByteLevel"}}, "tokenizer.json");
//   auto texts = decoder->decode({"Hello", "Ġworld"});   // {"Hello world"}
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer_json.h"

namespace dsengine {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // The text is the concatenation of what is returned.
  virtual std::vector<std::string> decode(std::vector<std::string> tokens) const = 0;
  // True if whatever tokens follow, the text of these stays as it is. `fused`: an earlier step has joined
  // the tokens, so that where one ends is no longer known.
  virtual bool is_settled(const std::vector<std::string>& tokens, bool fused) const = 0;
  virtual bool fuses() const { return false; }
};

// null makes one that puts a space between tokens; an unsupported type is a UserError.
std::unique_ptr<TokenDecoder> make_decoder(const TokenizerJson& json, const std::string& where);

}  // namespace dsengine
