#include "rl/examples.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/json.h"
#include "base/philox.h"
#include "plugin/instance.h"

namespace dsengine {

namespace {

std::vector<ChatMessage> turns_of(const DatasetInstance& data, const dse_record& record) {
  std::vector<ChatMessage> turns;
  for (const auto& m : data.messages(record)) turns.push_back({m.role, m.content, m.train != 0});
  return turns;
}

constexpr size_t kNamedRecords = 10;  // of a warning

// What a record is known by in splits: conversations with the same opening are never torn apart, and it does not matter
// what a stage reads of them.
uint64_t opening_hash(const DatasetInstance& data, const dse_record& record) {
  if (record.kind == DSE_RECORD_TEXT) return name_hash(record.text);
  const auto messages = data.messages(record);
  for (const auto& m : messages)
    if (std::string_view(m.role) != "system") return name_hash(m.content);
  return name_hash(messages.empty() ? record.prompt : messages.front().content);
}

// Whether the record's other fields label it as one not to be imitated, as data for KTO do ("label": false). A label
// that may mean the same in other words, beside an answer, is a UserError.
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

// Builds examples of one source.
class Encoder {
 public:
  Encoder(const TextModel& text, const DataConfig& config, uint32_t source)
      : text_(text), config_(config), source_(source) {}

  Example encode(const DatasetInstance& data, const dse_record& record) {
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
  bool prompt_cut() const { return prompt_cut_; }  // of the last encode: the prompt was too long

 private:
  void set_prompt(Example& e, const std::vector<ChatMessage>& turns) {
    e.prompt = text_.prompt_tokens(turns);
    DSE_CHECK_USER(!e.prompt.empty(), "the chat template leaves nothing of the prompt");
    cut_prompt(e);
    e.prompt_text = text_.prompt_text(turns, false);
  }
  void cut_prompt(Example& e) {
    const auto limit = size_t(config_.max_prompt_length);
    prompt_cut_ = e.prompt.size() > limit;
    if (prompt_cut_) e.prompt.erase(e.prompt.begin() + 1, e.prompt.end() - int64_t(limit) + 1);
  }
  AnswerTokens answer(const std::vector<ChatMessage>& turns, const std::string& content) const {
    AnswerTokens a{text_.answer_tokens(turns, content), {}};
    a.mask.assign(a.tokens.size(), 1);
    return a;
  }
  // Text without a prompt: the first token is given, the others are targets.
  void plain_text(Example& e, const std::string& text) const {
    auto tokens = text_.tokenizer.encode(text);
    if (!text_.eos.empty()) tokens.push_back(text_.eos[0]);
    e.prompt_text = text, e.is_text = true;
    e.prompt.assign(tokens.begin(), tokens.begin() + std::min<int64_t>(1, int64_t(tokens.size())));
    e.answer.tokens.assign(tokens.begin() + int64_t(e.prompt.size()), tokens.end());
    e.answer.mask.assign(e.answer.tokens.size(), 1);
  }
  // All turns up to the last target; what stands before the first is the prompt.
  void conversation(Example& e, const std::vector<ChatMessage>& turns) {
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
  static void append(AnswerTokens& to, const std::vector<TokenId>& tokens, uint8_t mask) {
    to.tokens.insert(to.tokens.end(), tokens.begin(), tokens.end());
    to.mask.insert(to.mask.end(), tokens.size(), mask);
  }
  static void train_on_prompt(Example& e) {
    AnswerTokens all;
    append(all, {e.prompt.begin() + 1, e.prompt.end()}, 1);
    append(all, e.answer.tokens, 1);
    e.prompt.resize(1);
    e.answer = std::move(all);
  }

  const TextModel& text_;
  const DataConfig& config_;
  uint32_t source_;
  bool prompt_cut_ = false;
};

// Cuts the answer to `limit` tokens with its prompt; false where no target of the loss is left.
bool truncate_answer(Example& e, size_t limit) {
  if (e.prompt.size() >= limit) return false;
  e.answer.tokens.resize(limit - e.prompt.size());
  e.answer.mask.resize(e.answer.tokens.size());
  return std::count(e.answer.mask.begin(), e.answer.mask.end(), 1) > 0;
}

std::vector<std::string> paths_of(const std::vector<DataSource>& sources) {
  std::vector<std::string> paths;
  for (const auto& from : sources) paths.push_back(from.path.string());
  return paths;
}

const char* made_of(uint32_t source) {
  return source == DSE_SOURCE_PAIRS ? "pairs" : source == DSE_SOURCE_ROLLOUT ? "prompts" : "records";
}

}  // namespace

Part Part::of(const DataConfig& config, uint32_t source, uint64_t seed) {
  const auto& shares = config.split;
  DSE_CHECK_USER(!shares.empty() || config.part == 0, "data.part = {} without data.split: give the parts' shares",
                 config.part);
  if (shares.empty()) return {};
  const int64_t usual = source == DSE_SOURCE_PAIRS ? 2 : source == DSE_SOURCE_ROLLOUT ? 3 : 1;
  const int64_t number = config.part > 0 ? config.part : usual;
  DSE_CHECK_USER(number <= int64_t(shares.size()),
                 "data.split has {} parts and a stage of {} wants part {}{}: add shares, or set data.part",
                 shares.size(), made_of(source), number, config.part > 0 ? "" : " where data.part is 0");
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  const auto share_before = [&](int64_t n) { return std::accumulate(shares.begin(), shares.begin() + n, 0.0) / total; };
  DSE_CHECK_USER(shares[size_t(number - 1)] > 0, "data.split gives part {}, which a stage of {} wants, the share 0",
                 number, made_of(source));
  return {seed, share_before(number - 1), share_before(number), number};
}

bool Part::holds(uint64_t content_hash) const {
  if (number == 0) return true;
  const double place = Philox(seed, Purpose::split, content_hash).uniform(0);
  return place >= begin && place < end;
}

ExampleSet ExampleSet::load(const std::vector<DataSource>& sources, const PluginRegistry& registry,
                            const TextModel& text, const DataConfig& config, uint32_t source, const Part& part) {
  ExampleSet set;
  for (const auto& from : sources) set.add(from, registry, text, config, source, part);
  DSE_CHECK_USER(set.size() > 0 || part.number == 0, "{}: part {} of data.split is empty: too few records or openings",
                 fmt::join(paths_of(sources), ", "), part.number);
  return set;
}

void ExampleSet::add(const DataSource& from, const PluginRegistry& registry, const TextModel& text,
                     const DataConfig& config, uint32_t source, const Part& part) {
  const Item& item = registry.find(DSE_DATASET, from.reader);
  DatasetInstance data(item, OptionSet(item, from.options), from.path);
  Encoder encoder(text, config, source);
  const auto limit = size_t(config.max_length);
  int64_t elsewhere = 0, dropped = 0, weightless = 0, labelled = 0, cut_prompts = 0, cut_records = 0;
  std::vector<int64_t> alike;  // pairs that would compare an answer with itself
  for (int64_t i = 0; i < data.size(); ++i) {
    const auto record = data.get(i);
    if (!part.holds(opening_hash(data, record))) {
      ++elsewhere;
      continue;
    }
    Example e;
    try {
      if (source == DSE_SOURCE_RECORDS && is_labelled_false(record)) {
        ++labelled;
        continue;
      }
      e = encoder.encode(data, record);
    } catch (const UserError& error) {
      user_error(fmt::format("{}: record {}: {}", from.path.string(), i + 1, error.what()));
    }
    if (e.weight == 0) {
      ++weightless;
      continue;
    }
    if (source == DSE_SOURCE_PAIRS && e.answer.tokens == e.rejected.tokens) {
      alike.push_back(i + 1);
      continue;
    }
    const size_t length = e.prompt.size() + std::max(e.answer.tokens.size(), e.rejected.tokens.size());
    const bool too_long = source != DSE_SOURCE_ROLLOUT && length > limit;
    const bool cut = too_long && source == DSE_SOURCE_RECORDS && config.too_long == TooLong::truncate;
    if ((cut ? !truncate_answer(e, limit) : too_long) || (source != DSE_SOURCE_ROLLOUT && e.answer.tokens.empty())) {
      ++dropped;
      continue;
    }
    cut_prompts += encoder.prompt_cut(), cut_records += cut;
    examples_.push_back(std::move(e));
    copies_.push_back(from.weight);
  }
  const int64_t own = data.size() - elsewhere;
  const int64_t used = own - dropped - weightless - labelled - int64_t(alike.size());
  spdlog::info(
      "data path={} reader={} records={} part={} other_parts={} used={} as={} truncated_prompts={} truncated={} "
      "dropped_too_long={} weight_zero={} label_false={} equal_answers={}",
      from.path.string(), from.reader, data.size(), part.number, elsewhere, used, made_of(source), cut_prompts,
      cut_records, dropped, weightless, labelled, alike.size());
  const auto shown = int64_t(std::min(alike.size(), kNamedRecords));
  if (shown > 0)
    spdlog::warn("data path={} equal_answers={} records={}{} note=\"pairs whose answers are alike are not used\"",
                 from.path.string(), alike.size(), fmt::join(alike.begin(), alike.begin() + shown, ","),
                 alike.size() > kNamedRecords ? ",…" : "");
  DSE_CHECK_USER(weightless < own || own == 0, "{}: every record has the weight 0", from.path.string());
  DSE_CHECK_USER(labelled < own || own == 0, "{}: every record has the label false", from.path.string());
  DSE_CHECK_USER(int64_t(alike.size()) < own || own == 0, "{}: the two answers of every pair are alike",
                 from.path.string());
  DSE_CHECK_USER(used > 0 || own == 0, "{}: every record is longer than data.max_length = {} tokens{}",
                 from.path.string(), config.max_length, own > dropped ? ", or may not be used" : "");
}

double ExampleSet::epoch_size() const { return std::accumulate(copies_.begin(), copies_.end(), 0.0); }

void ExampleSet::ask_critic(const TextModel& critic, const std::string& where) {
  for (auto& e : examples_) try {
      e.critic_prompt = critic.prompt_tokens(e.turns);
    } catch (const UserError& error) {
      user_error(fmt::format("{}, asked as its own template has it: {} (record: {})", where, error.what(),
                             e.prompt_text.substr(0, 80)));
    }
}

ExampleSet ExampleSet::split_off(double share) {
  ExampleSet kept, off;
  for (size_t i = 0; i < examples_.size(); ++i) {
    const bool away = Philox(0, Purpose::blend, examples_[i].content_hash).uniform(0) < share;
    auto& to = away ? off : kept;
    to.examples_.push_back(std::move(examples_[i]));
    to.copies_.push_back(copies_[i]);
  }
  *this = std::move(kept);
  return off;
}

std::vector<uint32_t> epoch_order(const ExampleSet& set, uint64_t seed, uint64_t stage_key, uint64_t epoch) {
  const Philox blend(seed, Purpose::blend, stage_key, epoch), shuffle(seed, Purpose::shuffle, stage_key, epoch);
  std::vector<uint32_t> order;
  for (size_t i = 0; i < set.size(); ++i) {
    const double copies = set.copies(i), whole = std::floor(copies);
    const auto count = size_t(whole) + (blend.uniform(i) < copies - whole ? 1 : 0);
    order.insert(order.end(), count, uint32_t(i));
  }
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(shuffle.uniform(i) * double(i))]);
  return order;
}

}  // namespace dsengine
