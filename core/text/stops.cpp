#include "text/stops.h"

#include <algorithm>

#include "base/check.h"

namespace dsengine {

Stops::Stops(Tokenizer tokenizer, const std::vector<std::string>& strings, const std::vector<int64_t>& ids)
    : tokenizer_(std::move(tokenizer)), ids_(ids.begin(), ids.end()) {
  for (const auto& text : strings) {
    DSE_CHECK_USER(!text.empty(), "an empty stop string would end every answer at once");
    const auto id = tokenizer_.id_of(text);
    if (id && tokenizer_.is_special(*id)) {
      ids_.insert(*id);
    } else {
      strings_.push_back(text);
      longest_ = std::max(longest_, text.size());
    }
  }
}

size_t Stops::place_in(const std::string& text) const {
  size_t first = std::string::npos;
  for (const auto& stop : strings_) first = std::min(first, text.find(stop));
  return first;
}

std::string Stops::text_before(std::span<const TokenId> tokens) const {
  if (!tokens.empty() && ids_.contains(tokens.back())) tokens = tokens.first(tokens.size() - 1);
  const std::string text = tokenizer_.decode(tokens, true);
  return text.substr(0, place_in(text));
}

bool StopMatcher::push(TokenId token) {
  if (stops_->ids_.contains(token)) return true;
  if (stops_->strings_.empty()) return false;
  tail_ += stream_.push(token);
  if (stops_->place_in(tail_ + stream_.pending()) != std::string::npos) return true;
  if (tail_.size() >= stops_->longest_) tail_.erase(0, tail_.size() - (stops_->longest_ - 1));
  return false;
}

}  // namespace dsengine
