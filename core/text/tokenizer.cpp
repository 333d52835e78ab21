#include "text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/directory.h"
#include "base/regular_file.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_reader.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

// Offsets within a word are 32 bits, and a byte may become two in the byte alphabet.
constexpr size_t longest_text = std::numeric_limits<int32_t>::max() / 4;

std::string join(const std::vector<std::string>& texts) {
  return std::accumulate(texts.begin(), texts.end(), std::string());
}

void encode_words(const TokenizerParts& parts, Pieces pieces, std::vector<TokenId>& ids) {
  parts.pre_tokenizer(pieces);
  for (size_t i = 0; i < pieces.spans.size(); ++i) parts.bpe.encode(pieces.at(i), ids);
}

// The marks of a normalized text. What the template wrote is found again by normalizing what stands before it; where
// that is no beginning of the whole, it stays marked as a user's.
std::string carried_marks(const TokenizerParts& parts, const Segment& before, std::string_view content,
                          const std::string& after) {
  std::string marks(after.size(), '\1');
  const auto place = [&](size_t end) {
    Segment part{before.text.substr(0, end), before.at_start};
    parts.normalizer(part);
    return after.starts_with(part.text) ? part.text.size() : std::string::npos;
  };
  for (size_t begin = 0, end; begin < content.size(); begin = end) {
    end = begin;
    while (end < content.size() && (content[end] == '\0') == (content[begin] == '\0')) ++end;
    if (content[begin] != '\0') continue;
    const size_t from = place(begin), to = place(end);
    if (from <= to && to <= after.size()) std::fill(marks.begin() + int64_t(from), marks.begin() + int64_t(to), '\0');
  }
  return marks;
}

void encode_segment(const TokenizerParts& parts, Segment segment, std::string_view content, std::vector<TokenId>& ids) {
  const Segment before = content.empty() ? Segment{} : segment;
  parts.normalizer(segment);
  auto found = parts.added.find_normalized(segment.text);
  const auto is_special = [&](const auto& part) {
    const AddedToken* added = part.id >= 0 ? parts.added.with_id(part.id) : nullptr;
    return added && added->special;
  };
  if (!content.empty() && std::ranges::any_of(found, is_special)) {
    const bool same = segment.text == before.text;
    const std::string marks = same ? std::string(content) : carried_marks(parts, before, content, segment.text);
    found = parts.added.find_normalized(segment.text, marks);
  }
  for (const auto& [span, id] : found) {
    if (id >= 0) {
      ids.push_back(id);
      continue;
    }
    std::string text = segment.text.substr(span.begin, span.end - span.begin);
    encode_words(parts, whole(std::move(text), segment.at_start && span.begin == 0), ids);
  }
}

}  // namespace

Tokenizer Tokenizer::from_directory(const std::filesystem::path& directory) {
  check_directory(directory);
  DSE_CHECK_USER(
      exists_in(directory),
      "{}: no tokenizer.json, no vocab.json with merges.txt, and no tokenizer.model; save the tokenizer there with "
      "transformers' save_pretrained",
      directory.string());
  return Tokenizer(std::make_shared<const TokenizerParts>(read_tokenizer_parts(directory)));
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, const std::string& where) {
  return Tokenizer(std::make_shared<const TokenizerParts>(parse_tokenizer_parts(tokenizer_json, where)));
}

bool Tokenizer::exists_in(const std::filesystem::path& directory) {
  const auto has = [&](const char* name) { return file_exists(directory / name); };
  return has("tokenizer.json") || (has("vocab.json") && has("merges.txt")) || has("tokenizer.model");
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return encode_marked(text, {}, add_special_tokens);
}

std::vector<TokenId> Tokenizer::encode_marked(std::string_view text, std::string_view content,
                                              bool add_special_tokens) const {
  DSE_CHECK(content.empty() || content.size() == text.size(), "{} marks of {} bytes", content.size(), text.size());
  DSE_CHECK_USER(text.size() <= longest_text, "a text of {} bytes is too long to tokenize: split it below {}",
                 text.size(), longest_text);
  DSE_CHECK_USER(is_valid_utf8(text), "a text of {} bytes is not valid UTF-8: convert it", text.size());
  std::vector<TokenId> ids;
  if (add_special_tokens) ids = parts_->prefix;
  for (const auto& [span, id] : parts_->added.find_raw(text, content)) {
    if (id >= 0) {
      ids.push_back(id);
    } else {
      const size_t size = span.end - span.begin;
      encode_segment(*parts_, {std::string(text.substr(span.begin, size)), span.begin == 0},
                     content.empty() ? content : content.substr(span.begin, size), ids);
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  return ids;
}

std::vector<std::string> Tokenizer::tokens_of(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const TokenId id : ids) {
    std::string token = token_of(id);
    if (token.empty()) continue;
    if (skip_special_tokens) {
      const AddedToken* added = parts_->added.with_content(token);
      if (added && added->special) continue;
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  return join(parts_->decoder->decode(tokens_of(ids, skip_special_tokens)));
}

int64_t Tokenizer::vocab_size() const { return std::max(parts_->bpe.highest_id(), parts_->added.highest_id()) + 1; }

std::optional<TokenId> Tokenizer::id_of(std::string_view token) const { return parts_->id_of(token); }

std::string Tokenizer::token_of(TokenId id) const {
  if (const AddedToken* added = parts_->added.with_id(id)) return added->shown;
  return std::string(parts_->bpe.token_of(id));
}

bool Tokenizer::is_special(TokenId id) const {
  const AddedToken* added = parts_->added.with_id(id);
  return added && added->special;
}

bool Tokenizer::has_ids_of(const Tokenizer& other) const {
  if (parts_ == other.parts_) return true;
  if (vocab_size() != other.vocab_size()) return false;
  for (TokenId id = 0; id < TokenId(vocab_size()); ++id)
    if (token_of(id) != other.token_of(id)) return false;
  return true;
}

std::optional<TokenId> Tokenizer::bos_id() const { return parts_->bos; }
std::optional<TokenId> Tokenizer::eos_id() const { return parts_->eos; }
std::optional<TokenId> Tokenizer::pad_id() const { return parts_->pad; }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::push(TokenId id) {
  for (auto& token : tokenizer_.tokens_of({&id, 1}, skip_special_tokens_)) {
    pending_.push_back(std::move(token));
    if (tokenizer_.parts_->decoder->is_settled(pending_, false)) return take_pending();
  }
  return "";
}

std::string StreamDecoder::finish() {
  std::string text = take_pending();
  beginning_.clear();
  beginning_text_.clear();
  return text;
}

std::pair<std::string, std::vector<std::string>> StreamDecoder::decoded() const {
  std::vector<std::string> tokens = beginning_;
  tokens.insert(tokens.end(), pending_.begin(), pending_.end());
  std::string text = join(tokenizer_.parts_->decoder->decode(tokens));
  return {std::move(text), std::move(tokens)};
}

std::string StreamDecoder::pending() const {
  return pending_.empty() ? "" : decoded().first.substr(beginning_text_.size());
}

std::string StreamDecoder::take_pending() {
  auto [text, tokens] = decoded();
  pending_.clear();
  if (!beginning_text_.empty()) return text.substr(beginning_text_.size());
  beginning_ = std::move(tokens);
  beginning_text_ = text;
  return text;
}

}  // namespace dsengine
