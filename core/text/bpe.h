// Byte-pair encoding of one word: its characters are merged, best-ranked pair first, until no pair has a
// rank. Thread-safe; O(n log n) in the word's length; short words are remembered.
//
//   Bpe bpe({{"a", 0}, {"b", 1}, {"ab", 2}}, {{"a", "b"}}, {}, "vocab.json");
//   std::vector<TokenId> ids;
//   bpe.encode("abb", ids);   // 2, 1
#pragma once
#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/string_map.h"

namespace dsengine {

using TokenId = int32_t;

class Bpe {
 public:
  using Vocabulary = std::vector<std::pair<std::string, TokenId>>;
  using Merges = std::vector<std::pair<std::string, std::string>>;  // best first
  struct Options {
    std::optional<std::string> unk_token = {};  // without one, an unknown character is dropped
    bool fuse_unk = false;                      // one unknown token for a run of unknown characters
    bool byte_fallback = false;                 // an unknown character becomes its bytes, "<0xE2>" and so on
    bool ignore_merges = false;                 // a word of the vocabulary is one token, merges or not
  };

  // `where` names the file in errors.
  Bpe(Vocabulary vocabulary, const Merges& merges, Options options, const std::string& where);

  // Appends the ids of `word` (valid UTF-8, mapped to the byte alphabet where the tokenizer does so).
  void encode(std::string_view word, std::vector<TokenId>& ids) const;

  std::optional<TokenId> id_of(std::string_view token) const;
  std::string_view token_of(TokenId id) const;  // "" if there is none
  TokenId highest_id() const { return static_cast<TokenId>(tokens_.size()) - 1; }

 private:
  struct Merge {
    int32_t rank;
    TokenId result;
  };
  struct Symbol;
  struct CacheShard {  // sharded, so that threads seldom wait for each other
    std::mutex mutex;
    StringMap<std::vector<TokenId>> words;
  };

  static uint64_t pair_key(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  const Merge* find_merge(TokenId left, TokenId right) const;
  std::vector<Symbol> initial_symbols(std::string_view word) const;
  void merge_all(std::vector<Symbol>& symbols) const;
  void encode_cached(std::string_view word, std::vector<TokenId>& ids) const;
  void encode_uncached(std::string_view word, std::vector<TokenId>& ids) const;

  Options options_;
  bool cuts_at_marks_ = false;  // no token goes on from another character to "▁"
  std::optional<TokenId> unk_id_;
  std::array<TokenId, 256> byte_ids_;         // -1: none
  std::vector<std::string> tokens_;           // by id; "" where there is none
  StringMap<TokenId, std::string_view> ids_;  // keys live in tokens_
  boost::unordered_flat_map<uint64_t, Merge> merges_;
  std::unique_ptr<std::array<CacheShard, 16>> cache_;
};

}  // namespace dsengine
