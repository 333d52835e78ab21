#include "text/added_tokens.h"

#include <algorithm>

#include "text/utf8.h"

namespace dsengine {

void AddedTokens::add(AddedToken token) {
  if (token.content.empty()) return;
  if (const auto same = ids_.find(token.content); same != ids_.end()) by_id_.erase(same->second);
  ids_[token.content] = token.id;
  by_id_[token.id] = std::move(token);
}

void AddedTokens::prepare(const Normalizer& normalizer, const std::string& where) {
  word_.emplace(fmt::format("[{}]", Regex::rust_word), where);
  for (auto& [id, token] : by_id_) {
    Segment pattern{token.content};
    if (token.normalized) normalizer(pattern);
    token.shown = std::move(pattern.text);
    (token.normalized ? normalized_ : raw_).add(token.shown, &token);
  }
}

const AddedToken* AddedTokens::with_content(std::string_view content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? nullptr : with_id(found->second);
}

const AddedToken* AddedTokens::with_id(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

void AddedTokens::Patterns::add(const std::string& pattern, const AddedToken* token) {
  if (pattern.empty() || !tokens.emplace(pattern, token).second) return;
  auto& of_byte = lengths[static_cast<unsigned char>(pattern[0])];
  if (std::ranges::find(of_byte, pattern.size()) != of_byte.end()) return;
  of_byte.push_back(pattern.size());
  std::ranges::sort(of_byte, std::greater<>());
}

const AddedToken* AddedTokens::Patterns::find(std::string_view text, std::string_view content, size_t from,
                                              Span& match) const {
  if (tokens.empty()) return nullptr;
  for (size_t at = from; at < text.size(); ++at) {
    for (const size_t length : lengths[static_cast<unsigned char>(text[at])]) {
      if (length > text.size() - at) continue;
      const auto found = tokens.find(text.substr(at, length));
      if (found == tokens.end()) continue;
      const bool written = !content.empty() && content.substr(at, length).find_first_not_of('\0') != content.npos;
      if (found->second->special && written) continue;
      match = {at, at + length};
      return found->second;
    }
  }
  return nullptr;
}

std::vector<AddedTokens::Part> AddedTokens::find(std::string_view text, std::string_view content,
                                                 const Patterns& patterns) const {
  std::vector<Part> parts;
  size_t end = 0;
  Span match;
  for (size_t from = 0; const AddedToken* token = patterns.find(text, content, from, match);) {
    from = match.end;
    if (split_special_ && token->special) continue;
    if (token->single_word && !stands_alone(text, match)) continue;
    while (token->lstrip && match.begin > end) {
      const size_t before = char_before(text, match.begin);
      if (!is_white_space(char_at(text, before))) break;
      match.begin = before;
    }
    while (token->rstrip && match.end < text.size() && is_white_space(char_at(text, match.end))) {
      match.end += char_bytes(text, match.end);
    }
    if (end < match.begin) parts.push_back({{end, match.begin}, -1});
    parts.push_back({match, token->id});
    from = end = match.end;
  }
  if (end < text.size()) parts.push_back({{end, text.size()}, -1});
  return parts;
}

bool AddedTokens::stands_alone(std::string_view text, Span match) const {
  const auto is_word = [&](size_t at) { return word_->matches(text.substr(at, char_bytes(text, at))); };
  return (match.begin == 0 || !is_word(char_before(text, match.begin))) &&
         (match.end == text.size() || !is_word(match.end));
}

}  // namespace dsengine
