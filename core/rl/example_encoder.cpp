#include "rl/example_encoder.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/json.h"
#include "base/philox.h"

namespace dsengine {

namespace {

std::vector<ChatMessage> turns_of(const DatasetInstance& data, const dse_record& record) {
  std::vector<ChatMessage> turns;
  for (const auto& m : data.messages(record)) turns.push_back({m.role, m.content, m.train != 0});
  return turns;
}

void append(AnswerTokens& to, const std::vector<TokenId>& tokens, uint8_t mask) {
  to.tokens.insert(to.tokens.end(), tokens.begin(), tokens.end());
  to.mask.insert(to.mask.end(), tokens.size(), mask);
}

void train_on_prompt(Example& e) {
  AnswerTokens all;
  append(all, {e.prompt.begin() + 1, e.prompt.end()}, 1);
  append(all, e.answer.tokens, 1);
  e.prompt.resize(1);
  e.answer = std::move(all);
}

}  // namespace

uint64_t opening_hash(const DatasetInstance& data, const dse_record& record) {
  if (record.kind == DSE_RECORD_TEXT) return name_hash(record.text);
  const auto messages = data.messages(record);
  for (const auto& m : messages)
    if (std::string_view(m.role) != "system") return name_hash(m.content);
  return name_hash(messages.empty() ? record.prompt : messages.front().content);
}

bool is_labelled_false(const dse_record& record) {
  const std::string_view metadata = record.metadata ? record.metadata : "";
  if (metadata.find("\"label\"") == metadata.npos) return false;
  const Json json = Json::parse(metadata, nullptr, false);
  const Json label = json.is_object() ? json.value("label", Json()) : Json();
  if (label.is_boolean()) return !label.get<bool>();
  const bool answers = record.kind == DSE_RECORD_COMPLETION || record.kind == DSE_RECORD_MESSAGES;
  static const std::set<Json> words{0, 1, "0", "1", "true", "false", "True", "False"};
  DSE_CHECK_USER(!answers || !words.contains(label),
                 "the field 'label' is {}: write true or false where it says whether the answer is to be learned, or "
                 "give it another name",
                 label.dump());
  return false;
}

Example ExampleEncoder::encode(const DatasetInstance& data, const dse_record& record) {
  Example e;
  prompt_cut_ = false;
  e.weight = record.weight;
  e.metadata = record.metadata ? record.metadata : "";
  auto turns = turns_of(data, record);
  if (turns.empty() && record.prompt) turns.push_back({"user", record.prompt, false});
  const auto wrong = [&](const char* wanted) {
    user_error(fmt::format("this stage wants {}; the record holds something else", wanted));
  };
  if (record.kind == DSE_RECORD_COMPLETION || record.kind == DSE_RECORD_PAIR)
    DSE_CHECK_USER(turns.empty() || turns.back().role != "assistant",
                   "the turns that the answer is to follow end with an answer");
  if (source_ == DSE_SOURCE_PAIRS) {
    if (record.kind != DSE_RECORD_PAIR) wrong("pairs (prompt, chosen, rejected)");
    set_prompt(e, turns);
    e.answer = answer(turns, record.chosen), e.rejected = answer(turns, record.rejected);
  } else if (source_ == DSE_SOURCE_ROLLOUT) {
    if (record.kind == DSE_RECORD_TEXT) wrong("prompts");
    const bool asked = record.kind == DSE_RECORD_MESSAGES || record.kind == DSE_RECORD_PROMPT;
    while (asked && !turns.empty() && turns.back().role == "assistant") turns.pop_back();
    if (turns.empty()) wrong("prompts that end with a user's turn");
    set_prompt(e, turns);
    e.turns = std::move(turns);
  } else if (record.kind == DSE_RECORD_TEXT) {
    plain_text(e, record.text);
  } else if (record.kind == DSE_RECORD_MESSAGES) {
    conversation(e, turns);
  } else if (record.kind == DSE_RECORD_COMPLETION || record.kind == DSE_RECORD_PAIR) {
    set_prompt(e, turns);
    e.answer = answer(turns, record.kind == DSE_RECORD_PAIR ? record.chosen : record.completion);
  } else {
    wrong("texts, messages, or prompts with completions");
  }
  if (config_.train_on == TrainOn::all && source_ == DSE_SOURCE_RECORDS) train_on_prompt(e);
  e.content_hash = opening_hash(data, record);
  return e;
}

void ExampleEncoder::set_prompt(Example& e, const std::vector<ChatMessage>& turns) {
  e.prompt = text_.prompt_tokens(turns);
  DSE_CHECK_USER(!e.prompt.empty(), "the chat template leaves nothing of the prompt");
  cut_prompt(e);
  e.prompt_text = text_.prompt_text(turns, false);
}

void ExampleEncoder::cut_prompt(Example& e) {
  const auto limit = size_t(config_.max_prompt_length);
  prompt_cut_ = e.prompt.size() > limit;
  if (prompt_cut_) e.prompt.erase(e.prompt.begin() + 1, e.prompt.end() - int64_t(limit) + 1);
}

AnswerTokens ExampleEncoder::answer(const std::vector<ChatMessage>& turns, const std::string& content) const {
  AnswerTokens a{text_.answer_tokens(turns, content), {}};
  a.mask.assign(a.tokens.size(), 1);
  return a;
}

// Text without a prompt: the first token is given, the others are targets.
void ExampleEncoder::plain_text(Example& e, const std::string& text) const {
  auto tokens = text_.tokenizer.encode(text);
  if (!text_.eos.empty()) tokens.push_back(text_.eos[0]);
  e.prompt_text = text, e.is_text = true;
  e.prompt.assign(tokens.begin(), tokens.begin() + std::min<int64_t>(1, int64_t(tokens.size())));
  e.answer.tokens.assign(tokens.begin() + int64_t(e.prompt.size()), tokens.end());
  e.answer.mask.assign(e.answer.tokens.size(), 1);
}

// All turns up to the last target; what stands before the first is the prompt.
void ExampleEncoder::conversation(Example& e, const std::vector<ChatMessage>& turns) {
  size_t asked = 0;
  while (asked < turns.size() && !(turns[asked].role == "assistant" && turns[asked].train)) ++asked;
  DSE_CHECK_USER(asked < turns.size(), "a conversation without an assistant turn to learn from");
  const AnswerTokens all = text_.conversation(turns);
  const auto first = std::max<int64_t>(std::ranges::find(all.mask, 1) - all.mask.begin(), 1);
  const auto last = std::find(all.mask.rbegin(), all.mask.rend(), 1).base() - all.mask.begin();
  DSE_CHECK_USER(first < last, "the chat template leaves nothing of the assistant's turns to learn");
  e.prompt.assign(all.tokens.begin(), all.tokens.begin() + first);
  e.answer.tokens.assign(all.tokens.begin() + first, all.tokens.begin() + last);
  e.answer.mask.assign(all.mask.begin() + first, all.mask.begin() + last);
  e.prompt_text = text_.tokenizer.decode(e.prompt, true);
  cut_prompt(e);
}

}  // namespace dsengine
