// Model::generate: prompts to replies, with stop strings and text as it comes.
#include <optional>

#include "base/check.h"
#include "engine/engine_impl.h"
#include "files/hf_directory.h"
#include "model/generator.h"
#include "text/stops.h"

namespace dse {

Tokens Model::empty_prompt() const {
  const Tokens ids = dsengine::token_ids(impl_->model().directory(), "bos_token_id", impl_->model().base());
  return ids.empty() ? Tokens() : Tokens{ids[0]};
}

void Model::check_prompt(const Tokens& prompt, int64_t max_new_tokens) const {
  dsengine::check_request(impl_->model(), prompt, max_new_tokens);
}

std::vector<Reply> Model::generate(const std::vector<Tokens>& prompts, const Sampling& s,
                                   const std::function<void(size_t, const std::string&)>& on_text) const {
  DSE_CHECK_USER(!is_value_model(), "{}: a reward model or critic answers nothing",
                 impl_->model().directory().string());
  DSE_CHECK_USER((s.stop.empty() && !on_text) || text(), "{}: stop strings and streamed text need a tokenizer",
                 impl_->model().directory().string());
  DSE_CHECK_USER(s.rows.empty() || s.rows.size() == prompts.size(), "{} rows for {} prompts", s.rows.size(),
                 prompts.size());
  DSE_CHECK_USER(s.samples > 0 && s.slots > 0, "samples and slots should be at least 1");
  std::vector<dsengine::GenerationRequest> requests;
  std::vector<dsengine::StreamDecoder> streams;
  for (size_t p = 0; p < prompts.size(); ++p)
    for (int64_t i = 0; i < s.samples; ++i) {
      const uint64_t row = s.rows.empty() ? p : s.rows[p];
      requests.push_back({prompts[p], s.max_new_tokens, row * uint64_t(s.samples) + uint64_t(i)});
      if (on_text) streams.emplace_back(text()->impl().text.tokenizer);
    }
  if (requests.empty()) return {};
  std::optional<dsengine::Stops> stops;
  if (!s.stop.empty()) stops.emplace(text()->impl().text.tokenizer, s.stop, std::vector<int64_t>{});
  dsengine::GenerationOptions options{.sampling = {.temperature = s.temperature,
                                                   .top_k = s.top_k,
                                                   .top_p = s.top_p,
                                                   .min_p = s.min_p,
                                                   .repetition_penalty = s.repetition_penalty},
                                      .eos = s.ignore_end ? Tokens{} : impl_->end_tokens,
                                      .on_token = {},
                                      .on_step = {}};
  if (on_text || stops)
    options.on_token = [&](size_t request, const Tokens& tokens) {
      if (on_text) on_text(request, streams[request].push(tokens.back()));
      return stops && stops->end(tokens);
    };
  auto generations = dsengine::Generator(impl_->model(), {.slots = s.slots}).run(requests, options, s.seed, s.step);
  std::vector<Reply> replies;
  for (size_t i = 0; i < generations.size(); ++i) {
    auto& g = generations[i];
    if (on_text) on_text(i, streams[i].finish());
    Reply reply{std::move(requests[i].prompt), std::move(g.tokens), std::move(g.logp), "", dsengine::name_of(g.finish)};
    if (text()) reply.text = text()->decode(reply.tokens);
    if (g.finish == dsengine::Finish::stop) reply.text = stops->text_before(reply.tokens);
    replies.push_back(std::move(reply));
  }
  return replies;
}

}  // namespace dse
