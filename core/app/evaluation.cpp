#include "app/evaluation.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "app/json_lines.h"
#include "app/model_folder.h"
#include "base/check.h"
#include "engine/engine_impl.h"
#include "files/hf_directory.h"
#include "rl/scorer.h"

namespace dsengine {

namespace {

struct Moments {
  double mean = 0, standard_error = 0;
  int64_t count = 0;
};

// Of the numbers that are no NaN.
Moments moments_of(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  int64_t n = 0;
  for (const double v : values)
    if (!std::isnan(v)) sum += v, ++n;
  const double mean = n > 0 ? sum / double(n) : 0;
  for (const double v : values)
    if (!std::isnan(v)) squares += (v - mean) * (v - mean);
  return {mean, n > 1 ? std::sqrt(squares / double(n - 1) / double(n)) : 0, n};
}

Json to_json(const Moments& m) {
  return {{"mean", m.mean}, {"standard_error", m.count > 1 ? Json(m.standard_error) : Json()}, {"count", m.count}};
}

std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> d;
  DSE_CHECK_USER(a.size() == b.size(), "the two models read {} and {} of the records: they cannot be compared",
                 a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) d.push_back(b[i] - a[i]);
  return d;
}

// key=value pairs as the item's option table types them.
OptionValues parse_options(const Item& item, const std::vector<std::string>& given, const char* flag) {
  OptionValues values;
  for (const auto& text : given) {
    const auto at = text.find('=');
    DSE_CHECK_USER(at != text.npos && at > 0, "{} {}: expected key=value", flag, text);
    const std::string key = text.substr(0, at), value = text.substr(at + 1);
    const auto option =
        std::find_if(item.options.begin(), item.options.end(), [&](const auto& o) { return o.name == key; });
    const uint32_t type = option == item.options.end() ? uint32_t(DSE_OPTION_STRING) : option->type;
    char* end = nullptr;
    OptionVariant parsed = value;
    if (type == DSE_OPTION_BOOLEAN && (value == "true" || value == "false")) parsed = value == "true";
    errno = 0;
    if (type == DSE_OPTION_INTEGER)
      if (const int64_t number = std::strtoll(value.c_str(), &end, 10); end != value.c_str() && !*end && errno == 0)
        parsed = number;
    if (type == DSE_OPTION_REAL)
      if (const double number = std::strtod(value.c_str(), &end); end != value.c_str() && !*end) parsed = number;
    values[key] = {parsed, fmt::format("{} {}", flag, text)};
  }
  return values;
}

// How many of the records can be measured which way.
struct Uses {
  int64_t records = 0, imitated = 0, compared = 0, asked = 0;
};

Uses uses_of(DatasetInstance& data) {
  Uses uses{data.size()};
  for (int64_t i = 0; i < uses.records; ++i) {
    const auto record = data.get(i);
    const auto messages = data.messages(record);
    const bool learned = std::any_of(messages.begin(), messages.end(), [](const dse_message& m) {
      return m.train && std::string_view(m.role) == "assistant";
    });
    uses.imitated += record.kind == DSE_RECORD_MESSAGES ? learned : record.kind != DSE_RECORD_PROMPT;
    uses.compared += record.kind == DSE_RECORD_PAIR;
    uses.asked += record.kind != DSE_RECORD_TEXT;
  }
  return uses;
}

void check_finite(const Json& numbers, const std::string& directory) {
  DSE_CHECK_USER(!has_non_finite(numbers), "{}: {}", directory, kNotFinite);
}

// One evaluation: the records, and the models that read them.
class Evaluation {
 public:
  Evaluation(const dse::Engine& engine, const EvalOptions& o, const dse::Sampling& sampling)
      : engine_(engine), options_(o), sampling_(sampling), registry_(engine.impl()->session.registry()) {
    DSE_CHECK_USER(!o.model.empty() || !o.reward_model.empty(), "eval: give --model, --reward-model or both");
    DSE_CHECK_USER(o.other.empty() || !o.model.empty(), "eval: --other is compared with --model: give that too");
    const Item& item = registry_.find(DSE_DATASET, o.reader);
    source_.reader = o.reader, source_.path = std::filesystem::absolute(o.data);
    source_.options = parse_options(item, o.data_options, "--data-option");
    DatasetInstance data(item, OptionSet(item, source_.options), source_.path);
    uses_ = uses_of(data);
    DSE_CHECK_USER(uses_.records > 0, "{}: no records are in it", o.data);
    if (!is_adapter(o.other)) check_base({o.model, o.base});
    check_base({o.reward_model, o.reward_base});
    for (const auto& directory : {o.model, o.other}) {
      if (directory.empty()) continue;
      models_.push_back(engine.load(
          directory, {.head = dse::HeadKind::language, .rounded_to_bf16 = o.dtype == "bf16", .base = o.base}));
      DSE_CHECK_USER(models_.back().text(), "{}: eval needs a tokenizer", directory);
    }
    if (!o.reward.empty()) reward_.plugin = o.reward;
    const Item& reward = registry_.find(DSE_REWARD_ITEM, reward_.plugin);
    reward_.options = parse_options(reward, o.reward_options, "--reward-option");
    [[maybe_unused]] const OptionSet checked(reward, reward_.options);  // before anything is answered
    result_ = {{"data", o.data}, {"records", data.size()}, {"rows", std::min(data.size(), o.rows)}};
    if (!o.model.empty()) result_["model"] = o.model;
    if (!o.other.empty()) result_["other"] = o.other;
  }

  Json run() {
    bool any = false;
    const auto all = [&](int64_t count) { return count == uses_.records; };
    const bool scored = !options_.reward.empty() || !options_.reward_model.empty();
    if (!models_.empty() && all(uses_.imitated)) any = true, loss();
    if (!options_.reward_model.empty() && all(uses_.compared)) any = true, accuracy();
    if (!models_.empty() && all(uses_.asked) && (scored || models_.size() > 1)) any = true, answers(scored);
    if (!models_.empty() && uses_.imitated > 0 && !all(uses_.imitated))
      spdlog::info("eval loss=none records={} note=\"{} of them have no answer to imitate\"", uses_.records,
                   uses_.records - uses_.imitated);
    DSE_CHECK_USER(
        any,
        "eval: nothing to measure: prompts want --model with --reward-model, --reward or --other; a reward "
        "model alone wants pairs ({}: of {} records {} are prompts, {} have an answer to imitate, {} are pairs)",
        options_.data, uses_.records, uses_.asked, uses_.imitated, uses_.compared);
    return std::move(result_);
  }

 private:
  ExampleSet load(const TextModel& text, uint32_t source) const {
    DataConfig config;
    config.max_length = config.max_prompt_length = std::numeric_limits<int32_t>::max();
    return ExampleSet::load({source_}, registry_, text, config, source);
  }
  // As many new tokens as asked for, or as the model has positions after the longest prompt.
  dse::Sampling fitting(const dse::Model& model, const std::vector<dse::Tokens>& prompts) const {
    dse::Sampling fit = sampling_;
    size_t longest = 0;
    for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
    if (const auto limit = model.max_positions(); limit > 0)
      fit.max_new_tokens = std::min(fit.max_new_tokens, limit - int64_t(longest));
    DSE_CHECK_USER(fit.max_new_tokens > 0, "{}: a prompt of {} tokens leaves no room in the model's {} positions",
                   options_.data, longest, model.max_positions());
    return fit;
  }
  const std::string& name_of(size_t model) const { return model == 0 ? options_.model : options_.other; }
  size_t rows_of(const ExampleSet& set) const { return std::min(set.size(), size_t(options_.rows)); }

  // Mean over the records' target tokens of -log p, of each model.
  void loss() {
    std::vector<std::vector<double>> by_record;
    for (const auto& model : models_) {
      const auto set = load(model.text()->impl().text, DSE_SOURCE_RECORDS);
      std::vector<dse::Reply> replies;
      for (size_t i = 0; i < rows_of(set); ++i) {
        const auto length = int64_t(set[i].prompt.size() + set[i].answer.tokens.size());
        DSE_CHECK_USER(model.max_positions() == 0 || length <= model.max_positions(),
                       "{}: record {} has {} tokens, the model takes {}", options_.data, i + 1, length,
                       model.max_positions());
        replies.push_back({set[i].prompt, set[i].answer.tokens, {}, "", ""});
      }
      const auto columns = model.log_probs(replies);
      check_finite(columns, name_of(by_record.size()));
      double sum = 0, tokens = 0;
      auto& means = by_record.emplace_back();
      for (size_t i = 0; i < replies.size(); ++i) {
        double own = 0, targets = 0;
        for (size_t t = 0; t < columns[i].size(); ++t)
          if (set[i].answer.mask[t]) own -= columns[i][t], targets += 1;
        means.push_back(targets > 0 ? own / targets : NAN), sum += own, tokens += targets;
      }
      result_["loss"].push_back({{"mean", sum / tokens}, {"perplexity", std::exp(sum / tokens)}, {"tokens", tokens}});
    }
    if (by_record.size() > 1) result_["loss_difference"] = to_json(moments_of(difference(by_record[0], by_record[1])));
  }

  // How often a reward model prefers the chosen answer; a tie counts half.
  void accuracy() {
    const dse::Model reward = engine_.load(
        options_.reward_model,
        {.head = dse::HeadKind::value, .rounded_to_bf16 = options_.dtype == "bf16", .base = options_.reward_base});
    DSE_CHECK_USER(reward.text(), "{}: eval needs a tokenizer", options_.reward_model);
    const auto set = load(reward.text()->impl().text, DSE_SOURCE_PAIRS);
    std::vector<dse::Tokens> sequences;
    for (size_t i = 0; i < rows_of(set); ++i)
      for (const auto* answer : {&set[i].answer, &set[i].rejected}) {
        sequences.push_back(set[i].prompt);
        sequences.back().insert(sequences.back().end(), answer->tokens.begin(), answer->tokens.end());
      }
    const auto values = reward.rewards(sequences);
    check_finite(values, options_.reward_model);
    std::vector<double> right, margin;
    for (size_t i = 0; i < values.size(); i += 2) {
      margin.push_back(values[i] - values[i + 1]);
      right.push_back(margin.back() > 0 ? 1 : margin.back() == 0 ? 0.5 : 0);
    }
    result_["accuracy"] = to_json(moments_of(right)), result_["margin"] = to_json(moments_of(margin));
  }

  // Each model's answers to the prompts, the same draws for both, and what they are worth.
  void answers(bool scored) {
    std::vector<std::vector<double>> rewards;
    for (size_t m = 0; m < models_.size(); ++m) {
      const auto& text = models_[m].text()->impl().text;
      const auto set = load(text, DSE_SOURCE_ROLLOUT);
      std::vector<dse::Tokens> prompts;
      for (size_t i = 0; i < rows_of(set); ++i) prompts.push_back(set[i].prompt);
      spdlog::info("eval answering={} prompts={}", name_of(m), prompts.size());
      const auto replies = models_[m].generate(prompts, fitting(models_[m], prompts));
      for (const auto& reply : replies) check_finite(reply.logprobs, name_of(m));
      auto& own = rewards.emplace_back(replies.size(), NAN);
      if (scored) {
        Scorer scorer(
            {reward_},
            load_reward_models(
                {reward_}, {options_.reward_model}, registry_, engine_.impl()->session.kernels(), text,
                options_.reward_base, {},
                engine_.impl()->session.kernels().on_card() && options_.dtype == "bf16" ? at::kBFloat16 : at::kFloat),
            registry_);
        std::vector<ScoredAnswer> answers;
        for (size_t i = 0; i < replies.size(); ++i) {
          ScoredAnswer a{set[i].prompt_text, replies[i].text, set[i].metadata, set[i].prompt};
          a.tokens.insert(a.tokens.end(), replies[i].tokens.begin(), replies[i].tokens.end());
          a.answer_size = int64_t(replies[i].tokens.size()), a.turns = set[i].turns;
          a.finish = choice_named<Finish>(replies[i].finish).value_or(Finish::length);
          answers.push_back(std::move(a));
        }
        const auto scores = scorer.score(answers);
        for (size_t i = 0; i < scores.size(); ++i) own[i] = scores[i].total;
        DSE_CHECK_USER(moments_of(own).count > 0, "the reward '{}' failed on all {} answers", reward_.plugin,
                       own.size());
        result_["reward"].push_back(to_json(moments_of(own)));
      }
      for (size_t i = 0; i < replies.size(); ++i) {
        auto& sample = result_["samples"][i];
        sample["prompt"] = set[i].prompt_text;
        sample["replies"].push_back(replies[i].text), sample["rewards"].push_back(own[i]);
      }
    }
    if (!scored || models_.size() < 2) return;
    const auto gain = difference(rewards[0], rewards[1]);
    result_["reward_difference"] = to_json(moments_of(gain));
    result_["better"] = std::count_if(gain.begin(), gain.end(), [](double d) { return d > 0; });
    result_["equal"] = std::count(gain.begin(), gain.end(), 0.0);
    result_["worse"] = std::count_if(gain.begin(), gain.end(), [](double d) { return d < 0; });
  }

  const dse::Engine& engine_;
  const EvalOptions& options_;
  const dse::Sampling& sampling_;
  const PluginRegistry& registry_;
  DataSource source_;
  RewardSource reward_;
  Uses uses_;
  std::vector<dse::Model> models_;
  Json result_;
};

}  // namespace

Json evaluate(const dse::Engine& engine, const EvalOptions& options, const dse::Sampling& sampling) {
  return Evaluation(engine, options, sampling).run();
}

}  // namespace dsengine
