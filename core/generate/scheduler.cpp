#include "generate/scheduler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/philox.h"
#include "ops/threads.h"

namespace dsengine {

using at::Tensor;

void Scheduler::set_limits(Limits limits) {
  DSE_CHECK(limits.slots > 0 && limits.prefill_tokens > 0, "{} slots, {} tokens", limits.slots, limits.prefill_tokens);
  limits_ = limits;
}

RequestId Scheduler::submit(GenerationRequest request) {
  check_request(decoder_.model(), request.prompt, request.max_new_tokens);
  DSE_CHECK(request.samples > 0, "{} samples", request.samples);
  auto job = std::make_shared<Job>();
  job->id = next_id_++, job->request = std::move(request);
  waiting_.push_back(std::move(job));
  return waiting_.back()->id;
}

void Scheduler::cancel(RequestId id) {
  std::erase_if(waiting_, [&](const auto& job) { return job->id == id; });
  for (const auto& answer : active_) answer->over |= answer->job->id == id;
  forget_over();
}

// What others still hold of them has no sequence any more.
void Scheduler::forget_over() {
  std::erase_if(active_, [](const auto& answer) {
    if (answer->over) answer->sequence = Sequence();
    return answer->over;
  });
}

// Filters and penalties are the host's, which has to know a token before the next one.
bool Scheduler::looks_ahead() const {
  return decoder_.records() &&
         std::ranges::none_of(active_, [](const auto& answer) { return answer->job->request.sampling.filters(); });
}

void Scheduler::release() {
  if (!idle()) return;
  unread_.clear();
  KvCache& cache = decoder_.cache();
  if (cache.free_blocks() != cache.blocks()) return;
  decoder_.forget_recorded();
  cache.hand_back();
}

std::vector<Event> Scheduler::step() try {
  std::vector<Event> events;
  decode(events);
  enter(events);
  return events;
} catch (...) {
  waiting_.clear(), active_.clear(), unread_.clear();
  throw;
}

// Enters waiting prompts while slots are free: one ragged forward over their tokens.
void Scheduler::enter(std::vector<Event>& events) {
  std::vector<std::shared_ptr<Job>> unread;
  std::vector<std::pair<std::shared_ptr<Job>, int64_t>> entering;  // how many of its samples
  int64_t free = limits_.slots - int64_t(active_.size()), tokens = 0;
  for (const auto& job : waiting_) {
    if (free <= 0) break;
    const int64_t length = int64_t(job->request.prompt.size());
    if (!job->prefix) {
      if (!unread.empty() && tokens + length > limits_.prefill_tokens) break;
      unread.push_back(job), tokens += length;
    }
    const int64_t count = std::min(free, job->left());
    entering.emplace_back(job, count), free -= count;
  }
  if (entering.empty()) return;
  reserve(unread);
  read_prompts(unread);
  Answers answers;
  std::vector<Tensor> logits;
  for (const auto& [job, count] : entering) {
    for (int64_t i = 0; i < count; ++i) {
      auto answer =
          std::make_shared<Answer>(Answer{job, job->next_sample++, decoder_.fork(*job->prefix, job->tokens())});
      if (job->request.stops) answer->stops.emplace(*job->request.stops);
      answers.push_back(std::move(answer));
      logits.push_back(job->logits);
    }
    if (job->left() > 0) continue;
    job->prefix.reset(), job->logits = Tensor();
    waiting_.pop_front();
  }
  active_.insert(active_.end(), answers.begin(), answers.end());
  draw(std::move(answers), at::cat(logits, 0), events);
}

// Every slot may come to hold the longest that is to be answered, beside the prompts that are read now.
void Scheduler::reserve(const std::vector<std::shared_ptr<Job>>& unread) {
  int64_t longest = 0, answers = int64_t(active_.size()), prompts = 0;
  for (const auto& answer : active_) longest = std::max(longest, answer->job->tokens());
  for (const auto& job : waiting_) {
    longest = std::max(longest, job->tokens()), answers += job->left();
    if (job->prefix) prompts += int64_t(job->prefix->blocks().size());
  }
  for (const auto& job : unread) prompts += KvCache::blocks_of(int64_t(job->request.prompt.size()));
  decoder_.cache().reserve(std::min(answers, limits_.slots) * KvCache::blocks_of(longest) + prompts);
}

// A prompt beyond prefill_tokens is read in pieces, alone; all of one turn their positions as the whole does.
void Scheduler::read_prompts(const std::vector<std::shared_ptr<Job>>& jobs) {
  if (jobs.empty()) return;
  std::vector<Sequence> prefixes;
  std::vector<Sequence*> sequences;
  std::vector<std::span<const int32_t>> tokens;
  for (const auto& job : jobs) {
    tokens.emplace_back(job->request.prompt);
    prefixes.push_back(decoder_.begin(int64_t(tokens.back().size())));
  }
  for (auto& prefix : prefixes) sequences.push_back(&prefix);
  const auto long_after = size_t(decoder_.model().graph().long_after);
  auto piece = size_t(limits_.prefill_tokens);
  if (long_after > 0 && tokens[0].size() > long_after) piece = std::max(piece, long_after + 1);
  while (tokens[0].size() > piece) {
    decoder_.forward({sequences[0]}, {tokens[0].first(piece)});
    tokens[0] = tokens[0].subspan(piece);
  }
  const Tensor logits = decoder_.forward(sequences, tokens);
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i]->prefix = std::move(prefixes[i]);
    jobs[i]->logits = logits.narrow(0, int64_t(i), 1).clone();  // kept over steps, which write theirs anew
  }
}

// One token for every answer in flight: after what was drawn in the last step where that is not read yet, and then
// read.
void Scheduler::decode(std::vector<Event>& events) {
  std::vector<Draws> before = std::exchange(unread_, {});
  Answers going;
  std::vector<Tensor> drawn;
  std::vector<int64_t> rows;
  int64_t row = 0;
  for (const Draws& draws : before) {
    for (const auto& answer : draws.answers) {
      if (!answer->over && !answer->all_drawn()) going.push_back(answer), rows.push_back(row);
      ++row;
    }
    drawn.push_back(draws.tokens);
  }
  const auto goes_on = [](const auto& answer) { return !answer->all_drawn(); };
  const bool ahead = looks_ahead() && int64_t(going.size()) == std::ranges::count_if(active_, goes_on);
  if (!ahead) read(before, events), going = active_;
  if (!going.empty()) {
    std::vector<Sequence*> sequences;
    for (const auto& answer : going) sequences.push_back(&answer->sequence);
    Tensor logits;
    if (ahead) {
      Tensor tokens = at::cat(drawn);
      if (int64_t(rows.size()) < row) tokens = tokens.index_select(0, decoder_.model().device().upload(rows));
      logits = decoder_.forward(sequences, tokens);
    } else {
      std::vector<std::span<const int32_t>> tokens;
      for (const auto& answer : going) tokens.push_back(std::span(std::as_const(answer->tokens)).last(1));
      logits = decoder_.forward(sequences, tokens);
    }
    draw(std::move(going), logits, events);
  }
  if (ahead) read(before, events);
}

void Scheduler::draw(Answers answers, const Tensor& logits, std::vector<Event>& events) {
  const Model& model = decoder_.model();
  const Device& device = model.device();
  std::vector<float> temperatures;
  std::vector<double> draws;
  for (const auto& answer : answers) {
    const auto& request = answer->job->request;
    const Philox uniforms(request.seed, Purpose::sample, request.step, request.row + uint64_t(answer->sample));
    temperatures.push_back(float(request.sampling.told_temperature()));
    draws.push_back(uniforms.uniform(uint64_t(answer->drawn++)));
    if (!request.sampling.filters() && request.sampling.temperature <= 0) draws.back() = -1;
  }
  const Tensor told_at = device.upload(temperatures);
  const auto [tokens, logp] = model.draw(logits, told_at, device.upload(draws));
  Draws made{std::move(answers), tokens, Arrival(tokens), Arrival(logp)};
  if (looks_ahead()) return unread_.push_back(std::move(made));
  Told told = told_of(made);
  filter(made.answers, logits, told_at, draws, told);
  tell(made.answers, told, events);
}

Scheduler::Told Scheduler::told_of(Draws& draws) {
  const Tensor &tokens = draws.tokens_here.wait(), &logp = draws.logp_here.wait();
  const auto count = draws.answers.size();
  return {{tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + count},
          {logp.const_data_ptr<float>(), logp.const_data_ptr<float>() + count}};
}

void Scheduler::filter(const Answers& answers, const Tensor& logits, const Tensor& told_at,
                       const std::vector<double>& draws, Told& told) const {
  std::vector<int64_t> filtered;
  for (size_t i = 0; i < answers.size(); ++i)
    if (answers[i]->job->request.sampling.filters()) filtered.push_back(int64_t(i));
  if (filtered.empty()) return;
  const Model& model = decoder_.model();
  const Tensor rows = model.device().upload(filtered), some = logits.index_select(0, rows), some_here = on_host(some);
  std::vector<int64_t> chosen(filtered.size());
  parallel_for(0, int64_t(filtered.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto place = size_t(filtered[size_t(i)]);
      chosen[size_t(i)] = sampled(*answers[place], some_here[i], draws[place]);
    }
  });
  const Tensor told_some =
      on_host(model.log_prob_of(some, told_at.index_select(0, rows), model.device().upload(chosen)));
  for (size_t i = 0; i < filtered.size(); ++i) {
    told.tokens[size_t(filtered[i])] = chosen[i];
    told.logp[size_t(filtered[i])] = told_some.const_data_ptr<float>()[i];
  }
}

int64_t Scheduler::sampled(const Answer& answer, const Tensor& logits, double draw) {
  const auto& request = answer.job->request;
  std::vector<int32_t> seen;
  if (request.sampling.repetition_penalty != 1) {
    seen = request.prompt;
    seen.insert(seen.end(), answer.tokens.begin(), answer.tokens.end());
  }
  return sample({logits.const_data_ptr<float>(), size_t(logits.size(0))}, request.sampling, draw, seen);
}

void Scheduler::read(std::vector<Draws>& draws, std::vector<Event>& events) {
  for (Draws& made : draws) tell(made.answers, told_of(made), events);
  draws.clear();
}

void Scheduler::tell(const Answers& answers, const Told& told, std::vector<Event>& events) {
  for (size_t i = 0; i < answers.size(); ++i) {
    Answer& answer = *answers[i];
    if (answer.over) continue;
    const auto& request = answer.job->request;
    const auto token = int32_t(told.tokens[i]);
    answer.tokens.push_back(token);
    const bool stop = answer.stops && answer.stops->push(token);
    std::optional<Finish> finish;
    if (std::count(request.eos.begin(), request.eos.end(), token) > 0)
      finish = Finish::eos;
    else if (stop)
      finish = Finish::stop;
    else if (int64_t(answer.tokens.size()) >= request.max_new_tokens)
      finish = Finish::length;
    events.push_back({answer.job->id, answer.sample, token, told.logp[i], finish});
    answer.over = finish.has_value();
  }
  forget_over();
}

std::vector<Generation> generate(Scheduler& scheduler, const std::vector<GenerationRequest>& requests,
                                 const std::function<void(size_t, const Event&)>& on_event) {
  DSE_CHECK(scheduler.idle(), "another's requests are in flight");
  std::map<RequestId, size_t> first;  // of a request's answers
  std::vector<Generation> answers;
  try {
    for (const auto& request : requests) {
      first.emplace(scheduler.submit(request), answers.size());
      answers.resize(answers.size() + size_t(request.samples));
    }
    while (!scheduler.idle())
      for (const auto& event : scheduler.step()) {
        const size_t place = first.at(event.request) + size_t(event.sample);
        auto& answer = answers[place];
        answer.tokens.push_back(event.token);
        answer.logp.push_back(event.logp);
        if (event.finish) answer.finish = *event.finish;
        if (on_event) on_event(place, event);
      }
  } catch (...) {
    for (const auto& [id, _] : first) scheduler.cancel(id);
    throw;
  }
  return answers;
}

}  // namespace dsengine
