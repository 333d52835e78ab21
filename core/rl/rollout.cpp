#include "rl/rollout.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/directory.h"
#include "base/json.h"
#include "files/atomic_directory.h"
#include "rl/agreement.h"
#include "rl/dealing.h"

namespace dsengine {

SamplingOptions sampling_of(const RolloutConfig& config) {
  return {.temperature = config.temperature,
          .top_k = config.top_k,
          .top_p = config.top_p,
          .min_p = config.min_p,
          .repetition_penalty = config.repetition_penalty};
}

Scheduler::Limits limits_of(const RolloutConfig& config) {
  return {.slots = config.slots > 0 ? config.slots : std::numeric_limits<int64_t>::max()};
}

std::vector<std::vector<int64_t>> dealt_answers(const std::vector<const Example*>& prompts, int64_t samples,
                                                const RolloutConfig& config, int64_t ranks) {
  std::vector<RowUnit> units;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const int64_t first = int64_t(p) * samples;
    units.push_back(
        {first, first + samples, int64_t(prompts[p]->prompt.size()) + samples * config.max_response_length});
  }
  return deal(units, ranks, 0).rows;
}

Rollout::Rollout(Scheduler& scheduler, const TextModel& text, const RolloutConfig& config, uint64_t seed,
                 Communicator& ranks)
    : scheduler_(scheduler),
      text_(text),
      config_(config),
      stops_(text.tokenizer, config.stop, config.stop_token_ids),
      seed_(seed),
      ranks_(ranks) {}

std::vector<Answered> Rollout::run(const std::vector<const Example*>& prompts, int64_t samples,
                                   const SamplingOptions& sampling, uint64_t step) const {
  // An answer's draws are its place's, wherever it is made.
  const auto rows = dealt_answers(prompts, samples, config_, ranks_.size());
  const auto& own = rows[size_t(ranks_.rank())];
  std::vector<Generation> generations(prompts.size() * size_t(samples));
  const Communicator::Purpose purpose(ranks_, "answers");
  ranks_.together([&] {
    std::vector<GenerationRequest> requests;
    for (size_t i = 0; i < own.size(); i += size_t(samples))
      requests.push_back({.prompt = prompts[size_t(own[i] / samples)]->prompt,
                          .max_new_tokens = config_.max_response_length,
                          .samples = samples,
                          .sampling = sampling,
                          .eos = text_.eos,
                          .stops = stops_.empty() ? nullptr : &stops_,
                          .seed = seed_,
                          .step = step,
                          .row = uint64_t(own[i])});
    auto made = dsengine::generate(scheduler_, requests);
    for (size_t i = 0; i < own.size(); ++i) generations[size_t(own[i])] = std::move(made[i]);
  });
  gather_answers(ranks_, rows, generations);
  std::vector<Answered> answers;
  for (size_t i = 0; i < generations.size(); ++i) {
    const size_t p = i / size_t(samples);
    answers.push_back({prompts[p], int64_t(p), std::move(generations[i])});
  }
  return answers;
}

std::vector<Answered> Rollout::generate(const std::vector<const Example*>& prompts, uint64_t step) const {
  if (!config_.replay.empty()) return replay(prompts, step);
  auto answers = run(prompts, config_.samples_per_prompt, sampling_of(config_), step);
  if (!config_.record.empty() && ranks_.rank() == 0) record(answers, step);
  return answers;
}

std::vector<Answered> Rollout::generate_greedy(const std::vector<const Example*>& prompts) const {
  return run(prompts, 1, {.temperature = 0, .repetition_penalty = config_.repetition_penalty}, 0);
}

std::filesystem::path Rollout::file_of(const std::filesystem::path& folder, uint64_t step) const {
  return folder / fmt::format("step-{:08}.json", step);
}

void Rollout::record(const std::vector<Answered>& answers, uint64_t step) const {
  Json rows = Json::array();
  for (const auto& a : answers)
    rows.push_back({{"prompt_ids", a.example->prompt},
                    {"output_ids", a.answer.tokens},
                    {"logprobs", a.answer.logp},
                    {"finish", int(a.answer.finish)},
                    {"prompt", a.prompt_id}});
  make_directories(config_.record);
  atomic_write_file(file_of(config_.record, step), rows.dump() + "\n");
}

std::vector<Answered> Rollout::replay(const std::vector<const Example*>& prompts, uint64_t step) const {
  const auto path = file_of(config_.replay, step);
  const Json rows = read_json(path);
  std::vector<Answered> answers;
  try {
    for (const auto& row : rows) {
      const int64_t prompt = row.at("prompt");
      DSE_CHECK_USER(prompt >= 0 && prompt < int64_t(prompts.size()) &&
                         row.at("prompt_ids").get<std::vector<int32_t>>() == prompts[size_t(prompt)]->prompt,
                     "{}: recorded from other prompts than this run's", path.string());
      Generation answer{row.at("output_ids"), row.at("logprobs"), Finish(row.at("finish").get<int>())};
      const auto fits = [&](int32_t id) { return id >= 0 && id < scheduler_.decoder().model().graph().vocabulary; };
      DSE_CHECK_USER(!answer.tokens.empty() && answer.tokens.size() == answer.logp.size() &&
                         std::all_of(answer.tokens.begin(), answer.tokens.end(), fits) &&
                         answer.finish >= Finish::eos && answer.finish <= Finish::stop,
                     "{}: an answer of prompt {} is damaged", path.string(), prompt);
      answers.push_back({prompts[size_t(prompt)], prompt, std::move(answer)});
    }
  } catch (const Json::exception& e) {
    throw UserError(fmt::format("{}: not a recorded rollout: {}", path.string(), e.what()));
  }
  return answers;
}

std::vector<ScoredAnswer> Rollout::to_score(const std::vector<Answered>& answers) const {
  std::vector<ScoredAnswer> result;
  for (const auto& a : answers) {
    std::span<const int32_t> reply = a.answer.tokens;
    if (a.answer.finish == Finish::eos) reply = reply.first(reply.size() - 1);
    const bool stopped = a.answer.finish == Finish::stop;
    ScoredAnswer scored{a.example->prompt_text,
                        stopped ? stops_.text_before(reply) : text_.tokenizer.decode(reply, true),
                        a.example->metadata,
                        a.example->prompt,
                        int64_t(a.answer.tokens.size()),
                        a.answer.finish,
                        a.example->turns};
    scored.tokens.insert(scored.tokens.end(), a.answer.tokens.begin(), a.answer.tokens.end());
    result.push_back(std::move(scored));
  }
  return result;
}

Experience Rollout::experience(const std::vector<Answered>& answers, const std::vector<AnswerScore>& scores) {
  Experience e;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (std::isnan(scores[i].total)) continue;
    const auto& a = answers[i];
    ExperienceRow row{a.example->prompt, int64_t(a.example->prompt.size()), a.answer.logp, a.example->critic_prompt};
    row.tokens.insert(row.tokens.end(), a.answer.tokens.begin(), a.answer.tokens.end());
    e.add_row(std::move(row), a.prompt_id, a.answer.finish, a.example->weight,
              std::vector<uint8_t>(a.answer.tokens.size(), 1));
    e.score.back() = scores[i].total;
  }
  return e;
}

}  // namespace dsengine
