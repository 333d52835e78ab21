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

bool Stops::end(std::span<const TokenId> tokens) const {
  if (tokens.empty()) return false;
  if (ids_.contains(tokens.back())) return true;
  if (strings_.empty()) return false;
  // A string that ends in the newest token's text begins in that of the last few, decoded without the beginning of the
  // answer; the margin is what a decoder makes of a beginning: a space less, a broken character.
  constexpr size_t margin = 8;
  for (size_t count = 8;; count *= 2) {
    const auto tail = tokens.last(std::min(count, tokens.size()));
    const bool enough = tail.size() == tokens.size() ||
                        tokenizer_.decode(tail.first(tail.size() - 1), true).size() >= longest_ + margin;
    if (enough) return place_in(tokenizer_.decode(tail, true)) != std::string::npos;
  }
}

std::string Stops::text_before(std::span<const TokenId> tokens) const {
  if (!tokens.empty() && ids_.contains(tokens.back())) tokens = tokens.first(tokens.size() - 1);
  const std::string text = tokenizer_.decode(tokens, true);
  return text.substr(0, place_in(text));
}

}  // namespace dsengine
