#include "rl/examples.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/philox.h"
#include "plugin/instance.h"
#include "rl/example_encoder.h"

namespace dsengine {

namespace {

constexpr size_t kNamedRecords = 10;  // of a warning

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

// What became of a source's records.
struct Tally {
  int64_t records = 0, elsewhere = 0, dropped = 0, weightless = 0, labelled = 0, cut_prompts = 0, cut_records = 0;
  std::vector<int64_t> alike{};  // pairs that would compare an answer with itself

  int64_t own() const { return records - elsewhere; }  // of the part
  int64_t used() const { return own() - dropped - weightless - labelled - int64_t(alike.size()); }
};

void report(const Tally& tally, const DataSource& from, const Part& part, uint32_t source) {
  spdlog::info(
      "data path={} reader={} records={} part={} other_parts={} used={} as={} truncated_prompts={} truncated={} "
      "dropped_too_long={} weight_zero={} label_false={} equal_answers={}",
      from.path.string(), from.reader, tally.records, part.number, tally.elsewhere, tally.used(), made_of(source),
      tally.cut_prompts, tally.cut_records, tally.dropped, tally.weightless, tally.labelled, tally.alike.size());
  const auto& alike = tally.alike;
  const auto shown = int64_t(std::min(alike.size(), kNamedRecords));
  if (shown > 0)
    spdlog::warn("data path={} equal_answers={} records={}{} note=\"pairs whose answers are alike are not used\"",
                 from.path.string(), alike.size(), fmt::join(alike.begin(), alike.begin() + shown, ","),
                 alike.size() > kNamedRecords ? ",…" : "");
}

// UserError where nothing of a source can be used, by what most explains it.
void check_used(const Tally& tally, const DataSource& from, const DataConfig& config) {
  const int64_t own = tally.own();
  if (own == 0) return;
  DSE_CHECK_USER(tally.weightless < own, "{}: every record has the weight 0", from.path.string());
  DSE_CHECK_USER(tally.labelled < own, "{}: every record has the label false", from.path.string());
  DSE_CHECK_USER(int64_t(tally.alike.size()) < own, "{}: the two answers of every pair are alike", from.path.string());
  DSE_CHECK_USER(tally.used() > 0, "{}: every record is longer than data.max_length = {} tokens{}", from.path.string(),
                 config.max_length, own > tally.dropped ? ", or may not be used" : "");
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
  ExampleEncoder encoder(text, config, source);
  const auto limit = size_t(config.max_length);
  Tally tally;
  for (int64_t i = 0; i < data.size(); ++i) {
    const auto record = data.get(i);
    ++tally.records;
    if (!part.holds(opening_hash(data, record))) {
      ++tally.elsewhere;
      continue;
    }
    Example e;
    try {
      if (source == DSE_SOURCE_RECORDS && is_labelled_false(record)) {
        ++tally.labelled;
        continue;
      }
      e = encoder.encode(data, record);
    } catch (const UserError& error) {
      user_error(fmt::format("{}: record {}: {}", from.path.string(), i + 1, error.what()));
    }
    if (e.weight == 0) {
      ++tally.weightless;
      continue;
    }
    if (source == DSE_SOURCE_PAIRS && e.answer.tokens == e.rejected.tokens) {
      tally.alike.push_back(i + 1);
      continue;
    }
    const size_t length = e.prompt.size() + std::max(e.answer.tokens.size(), e.rejected.tokens.size());
    const bool too_long = source != DSE_SOURCE_ROLLOUT && length > limit;
    const bool cut = too_long && source == DSE_SOURCE_RECORDS && config.too_long == TooLong::truncate;
    if ((cut ? !truncate_answer(e, limit) : too_long) || (source != DSE_SOURCE_ROLLOUT && e.answer.tokens.empty())) {
      ++tally.dropped;
      continue;
    }
    tally.cut_prompts += encoder.prompt_cut(), tally.cut_records += cut;
    examples_.push_back(std::move(e));
    copies_.push_back(from.weight);
  }
  report(tally, from, part, source);
  check_used(tally, from, config);
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
