// Model::generate: prompts to replies, with stop strings and text as it comes.
#include <optional>

#include "base/check.h"
#include "engine/engine_impl.h"
#include "files/hf_directory.h"
#include "generate/scheduler.h"
#include "text/stops.h"

namespace dse {

Tokens Model::empty_prompt() const {
  const Tokens ids =
      dsengine::token_ids(impl_->model().origin().directory, "bos_token_id", impl_->model().origin().base);
  return ids.empty() ? Tokens() : Tokens{ids[0]};
}

void Model::check_prompt(const Tokens& prompt, int64_t max_new_tokens) const {
  dsengine::check_request(impl_->model(), prompt, max_new_tokens);
}

std::vector<Reply> Model::generate(const std::vector<Tokens>& prompts, const Sampling& s,
                                   const std::function<void(size_t, const std::string&)>& on_text) const {
  DSE_CHECK_USER(!is_value_model(), "{}: a reward model or critic answers nothing",
                 impl_->model().origin().directory.string());
  DSE_CHECK_USER((s.stop.empty() && !on_text) || text(), "{}: stop strings and streamed text need a tokenizer",
                 impl_->model().origin().directory.string());
  DSE_CHECK_USER(s.rows.empty() || s.rows.size() == prompts.size(), "{} rows for {} prompts", s.rows.size(),
                 prompts.size());
  DSE_CHECK_USER(s.samples > 0 && s.slots > 0, "samples and slots should be at least 1");
  std::vector<dsengine::StreamDecoder> streams;
  std::optional<dsengine::Stops> stops;
  if (!s.stop.empty()) stops.emplace(text()->impl().text.tokenizer, s.stop, std::vector<int64_t>{});
  std::vector<dsengine::GenerationRequest> requests;
  for (size_t p = 0; p < prompts.size(); ++p) {
    requests.push_back({.prompt = prompts[p],
                        .max_new_tokens = s.max_new_tokens,
                        .samples = s.samples,
                        .sampling = {.temperature = s.temperature,
                                     .top_k = s.top_k,
                                     .top_p = s.top_p,
                                     .min_p = s.min_p,
                                     .repetition_penalty = s.repetition_penalty},
                        .eos = s.ignore_end ? Tokens{} : impl_->end_tokens,
                        .stops = stops ? &*stops : nullptr,
                        .seed = s.seed,
                        .step = s.step,
                        .row = (s.rows.empty() ? p : s.rows[p]) * uint64_t(s.samples)});
    for (int64_t i = 0; on_text && i < s.samples; ++i) streams.emplace_back(text()->impl().text.tokenizer);
  }
  if (requests.empty()) return {};
  const dsengine::Scheduler::Limits limits{.slots = s.slots};
  if (!impl_->scheduler) impl_->scheduler = std::make_unique<dsengine::Scheduler>(impl_->model(), limits);
  std::optional<dsengine::Scheduler> own;  // where on_text asks the same model
  auto& scheduler = impl_->scheduler->idle() ? *impl_->scheduler : own.emplace(impl_->model(), limits);
  scheduler.set_limits(limits);
  std::function<void(size_t, const dsengine::Event&)> on_event;
  if (on_text) on_event = [&](size_t i, const dsengine::Event& event) { on_text(i, streams[i].push(event.token)); };
  auto generations = dsengine::generate(scheduler, requests, on_event);
  std::vector<Reply> replies;
  for (size_t i = 0; i < generations.size(); ++i) {
    auto& g = generations[i];
    if (on_text) on_text(i, streams[i].finish());
    Reply reply{prompts[i / size_t(s.samples)], std::move(g.tokens), std::move(g.logp), "",
                dsengine::name_of(g.finish)};
    if (text()) reply.text = text()->decode(reply.tokens);
    if (g.finish == dsengine::Finish::stop) reply.text = stops->text_before(reply.tokens);
    replies.push_back(std::move(reply));
  }
  return replies;
}

}  // namespace dse
