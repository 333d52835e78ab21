#include "text/text_model.h"

#include <algorithm>

#include "base/check.h"
#include "files/hf_directory.h"

namespace dsengine {

namespace {

using Ids = std::vector<TokenId>;

size_t common(const Ids& a, const Ids& b) { return size_t(std::ranges::mismatch(a, b).in1 - a.begin()); }

// Of a conversation's text up to the opening of an answer, and its text with the answer.
void check_follows(const std::string& asked, const std::string& answered) {
  DSE_CHECK_USER(answered.starts_with(asked),
                 "the chat template does not write an answer behind the text that asks for it, so that what is to be "
                 "learned cannot be told: mark it in the template with {{% generation %}}");
}

std::string content_marks(const jinja::Text& text) {
  std::string marks = text.origin;
  for (char& c : marks) c = char(c & jinja::content);
  return marks;
}

}  // namespace

std::optional<std::filesystem::path> TextModel::folder_of(const std::filesystem::path& model_directory,
                                                          const std::filesystem::path& base) {
  for (const auto& folder : {model_directory, base_directory(model_directory, base)})
    if (Tokenizer::exists_in(folder)) return folder;
  return std::nullopt;
}

TextModel TextModel::load(const std::filesystem::path& tokenizer_directory,
                          const std::filesystem::path& model_directory, const std::filesystem::path& base) {
  const auto folder = folder_of(tokenizer_directory, base).value_or(tokenizer_directory);
  TextModel text{Tokenizer::from_directory(folder), eos_ids(model_directory, base), ChatFormat::of(folder)};
  if (text.eos.empty())
    if (const auto id = text.tokenizer.eos_id()) text.eos.push_back(*id);
  return text;
}

// The ids of a text's beginning.
Ids TextModel::encode(const jinja::Text& text, size_t size, bool add_special_tokens) const {
  return tokenizer.encode_marked(std::string_view(text.bytes).substr(0, size), content_marks(text).substr(0, size),
                                 add_special_tokens);
}

Ids TextModel::prompt_tokens(const std::vector<ChatMessage>& turns, const ChatOptions& options) const {
  std::vector<ChatPiece> pieces = chat.render(turns, true, options);
  for (auto& piece : pieces)
    for (char& c : piece.text.origin) c = char(c & jinja::content);
  return marked(pieces).tokens;
}

std::string TextModel::prompt_text(const std::vector<ChatMessage>& turns, bool with_ends,
                                   const ChatOptions& options) const {
  if (chat.has_template() && !with_ends) return tokenizer.decode(prompt_tokens(turns, options), true);
  std::string text;
  for (const auto& piece : chat.render(turns, true, options)) {
    text += piece.text.bytes;
    if (piece.ends && with_ends && !eos.empty()) text += tokenizer.decode(Ids{eos[0]}, false);
  }
  return text;
}

AnswerTokens TextModel::marked(const std::vector<ChatPiece>& pieces) const {
  AnswerTokens all;
  for (size_t p = 0; p < pieces.size(); ++p) {
    const jinja::Text& text = pieces[p].text;
    const bool ends = pieces[p].ends;
    const size_t before = all.tokens.size();
    const Ids ids = encode(text, text.bytes.size(), !chat.has_template() && p == 0);
    all.tokens.insert(all.tokens.end(), ids.begin(), ids.end());
    const bool ends_marked = !text.origin.empty() && (text.origin.back() & jinja::generated);
    if (ends && !eos.empty()) all.tokens.push_back(eos[0]);
    all.mask.resize(all.tokens.size(), 0);
    const auto is_marked = [&](size_t i) { return (text.origin[i] & jinja::generated) != 0; };
    for (size_t from = 0, to; from < text.origin.size(); from = to) {
      to = from + 1;
      while (to < text.origin.size() && is_marked(to) == is_marked(from)) ++to;
      if (!is_marked(from)) continue;
      // A token belongs to the block where one of its bytes does. What the text's beginning encodes to ends, where it
      // is like the whole, before the block; a token that goes on over the edge differs.
      const Ids left = from == 0 ? Ids{} : encode(text, from, !chat.has_template() && p == 0);
      const Ids right = to == text.bytes.size() ? ids : encode(text, to, !chat.has_template() && p == 0);
      const size_t first = common(left, ids), same = common(right, ids);
      const size_t last = same < right.size() ? std::min(same + 1, ids.size()) : same;
      for (size_t i = first; i < last; ++i) all.mask[before + i] = 1;
    }
    if (ends && ends_marked && !eos.empty()) all.mask.back() = 1;
  }
  return all;
}

bool TextModel::is_end(TokenId id) const { return std::ranges::count(eos, id) > 0 || tokenizer.is_special(id); }

std::optional<TokenId> TextModel::turn_end() const {
  try {
    const Ids answer = answer_tokens({{"user", "a"}}, "b");
    if (!answer.empty() && is_end(answer.back())) return answer.back();
  } catch (const UserError&) {  // a template that refuses so short a conversation
  }
  return std::nullopt;
}

// Where a turn that begins at `from` ends: after its end-of-turn token, beyond `to` where it has none. That is the
// first token that ends an answer when the model writes it; else the last special one.
size_t TextModel::end_of_turn(const Ids& ids, size_t from, size_t to) const {
  for (size_t i = from; i < to; ++i)
    if (std::ranges::count(eos, ids[i]) > 0) return i + 1;
  for (size_t i = to; i > from; --i)
    if (tokenizer.is_special(ids[i - 1])) return i;
  return to + 1;  // none
}

Ids TextModel::answer_tokens(const std::vector<ChatMessage>& turns, const std::string& answer, bool ended,
                             const ChatOptions& options) const {
  Ids ids;
  std::vector<ChatMessage> all = turns;
  all.push_back({"assistant", answer, true});
  if (!chat.has_template()) {
    const auto pieces = chat.render(all, false, options);
    const auto& piece = pieces[pieces.size() - 2];  // the line's end comes after it
    ids = encode(piece.text, piece.text.bytes.size(), false);
    if (ended && !eos.empty()) ids.push_back(eos[0]);
    return ids;
  }
  const jinja::Text prompt = chat.render(turns, true, options)[0].text;
  const jinja::Text whole = chat.render(all, false, options)[0].text;
  check_follows(prompt.bytes, whole.bytes);
  const Ids asked = encode(prompt, prompt.bytes.size(), false);
  ids = encode(whole, whole.bytes.size(), false);
  if (common(asked, ids) == asked.size()) {
    ids.erase(ids.begin(), ids.begin() + int64_t(asked.size()));
  } else {  // a token goes over the edge: the answer as a model that was asked would write it
    const size_t from = prompt.bytes.size();
    const jinja::Text rest{whole.bytes.substr(from), whole.origin.substr(from)};
    ids = encode(rest, rest.bytes.size(), false);
  }
  const size_t end = end_of_turn(ids, 0, ids.size());
  if (end <= ids.size()) {
    ids.resize(ended ? end : end - 1);
  } else if (ended && !eos.empty()) {
    ids.push_back(eos[0]);
  }
  return ids;
}

// Without {% generation %}: a turn is what it adds to the conversation before it, up to its end-of-turn token.
void TextModel::learn_differences(const std::vector<ChatMessage>& turns, const ChatOptions& options,
                                  const jinja::Text& whole, AnswerTokens& to) const {
  for (size_t i = 0; i < turns.size(); ++i) {
    if (turns[i].role != "assistant" || !turns[i].train) continue;
    const std::vector<ChatMessage> before(turns.begin(), turns.begin() + int64_t(i));
    const std::vector<ChatMessage> with(turns.begin(), turns.begin() + int64_t(i) + 1);
    const jinja::Text asked = chat.render(before, true, options)[0].text;
    const jinja::Text answered = i + 1 == turns.size() ? whole : chat.render(with, false, options)[0].text;
    check_follows(asked.bytes, answered.bytes);
    // What a template writes only at a conversation's end may be missing in the whole.
    const size_t end = size_t(std::ranges::mismatch(answered.bytes, whole.bytes).in1 - answered.bytes.begin());
    const Ids left = encode(asked, asked.bytes.size(), false), right = encode(whole, end, false);
    const size_t first = common(left, to.tokens), last = common(right, to.tokens);
    const size_t turn_end = end_of_turn(to.tokens, first, last);
    const bool is_beginning = whole.bytes.starts_with(asked.bytes);
    DSE_CHECK_USER(is_beginning && (end == answered.bytes.size() || turn_end <= last),
                   "the chat template writes turn {} otherwise when more follows, so that what is to be learned of it "
                   "cannot be told: set \"train\": false for all but the last turn of the assistant, or mark answers "
                   "in the template with {{% generation %}}",
                   i + 1);
    std::fill(to.mask.begin() + int64_t(first), to.mask.begin() + int64_t(std::min(turn_end, last)), 1);
    if (turn_end > last && i + 1 == turns.size() && !eos.empty()) to.tokens.push_back(eos[0]), to.mask.push_back(1);
  }
}

AnswerTokens TextModel::conversation(const std::vector<ChatMessage>& turns, const ChatOptions& options) const {
  std::vector<ChatPiece> pieces = chat.render(turns, false, options);
  if (!chat.has_template()) return marked(pieces);
  jinja::Text& whole = pieces[0].text;
  if (!chat.marks_answers()) {
    AnswerTokens all{encode(whole, whole.bytes.size(), false), {}};
    all.mask.resize(all.tokens.size(), 0);
    learn_differences(turns, options, whole, all);
    return all;
  }
  // The blocks are the assistant's turns in their order.
  std::vector<bool> train;
  for (const auto& turn : turns)
    if (turn.role == "assistant") train.push_back(turn.train);
  if (std::ranges::count(train, false) == 0) return marked(pieces);
  size_t block = 0;
  for (size_t i = 0; i < whole.origin.size(); ++i) {
    if (!(whole.origin[i] & jinja::generated)) continue;
    const bool ends = i + 1 == whole.origin.size() || !(whole.origin[i + 1] & jinja::generated);
    if (block < train.size() && !train[block]) whole.origin[i] = char(whole.origin[i] & ~jinja::generated);
    block += ends;
  }
  DSE_CHECK_USER(block == train.size(),
                 "the chat template marks {} answers of {}, so that \"train\": false cannot be told of one: leave it "
                 "out, or cut the conversation",
                 block, train.size());
  return marked(pieces);
}

}  // namespace dsengine
