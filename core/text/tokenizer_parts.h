// What a tokenizer is made of, in the order a text meets it.
//
//   TokenizerParts parts = read_tokenizer_parts("models/opt-125m");  // text/tokenizer_reader.h
//   parts.normalizer(segment);
//   parts.bpe.encode(word, ids);
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"

namespace dsengine {

struct TokenizerParts {
  AddedTokens added = {};
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  std::vector<TokenId> prefix = {}, suffix = {};  // around each sequence, where special tokens are added
  std::unique_ptr<TokenDecoder> decoder;
  std::optional<TokenId> bos = {}, eos = {}, pad = {};

  std::optional<TokenId> id_of(std::string_view token) const {
    if (const AddedToken* found = added.with_content(token)) return found->id;
    return bpe.id_of(token);
  }
};

}  // namespace dsengine
