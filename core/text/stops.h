// What ends an answer beside the model's end tokens: strings that its text comes to hold, and tokens.
//
//   Stops stops(tokenizer, {"\nHuman:"}, {});
//   StopMatcher matcher(stops);                           // of one answer
//   if (matcher.push(token)) …                            // asked with each token
//   std::string reply = stops.text_before(tokens);        // of an answer that one has ended
//
// A string that is a special token stands for that token, which no text shows.
#pragma once
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace dsengine {

class Stops {
 public:
  // UserError where a string is empty: it would end every answer at once.
  Stops(Tokenizer tokenizer, const std::vector<std::string>& strings, const std::vector<int64_t>& ids);

  bool empty() const { return strings_.empty() && ids_.empty(); }
  const std::set<TokenId>& ids() const { return ids_; }
  // Without special tokens and the stop.
  std::string text_before(std::span<const TokenId> tokens) const;

 private:
  friend class StopMatcher;
  size_t place_in(const std::string& text) const;  // of the first string; npos: none

  Tokenizer tokenizer_;
  std::vector<std::string> strings_;
  std::set<TokenId> ids_;
  size_t longest_ = 0;
};

// Follows one answer, of which it keeps as much text as a stop may have begun in: a token costs no more than that, and
// than tokens whose text the next ones may still change (a run of bytes). The Stops outlive it.
class StopMatcher {
 public:
  explicit StopMatcher(const Stops& stops) : stops_(&stops), stream_(stops.tokenizer_) {}
  // Whether the answer's next token completes a stop.
  bool push(TokenId token);

 private:
  const Stops* stops_;
  StreamDecoder stream_;
  std::string tail_;
};

}  // namespace dsengine
