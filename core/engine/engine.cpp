#include "engine/engine.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/check.h"
#include "engine/engine_impl.h"
#include "files/atomic_directory.h"
#include "files/hf_directory.h"
#include "model/hf/adapter_files.h"
#include "model/hf/load.h"
#include "model/hf/save.h"
#include "rl/forward.h"
#include "rl/scorer.h"
#include "run/logging.h"

namespace dse {

namespace {

using dsengine::ModelKind;
constexpr int64_t kTokensPerForward = 8192;

// Calls f(first, last) for runs of items whose sizes sum to about kTokensPerForward.
template <class Size, class F>
void in_parts(size_t count, const Size& size, F&& f) {
  for (size_t first = 0, last = 0; first < count; first = last) {
    int64_t tokens = 0;
    while (last < count && (last == first || tokens + size(last) <= kTokensPerForward)) tokens += size(last++);
    f(first, last);
  }
}

std::vector<dsengine::ChatMessage> messages_of(const std::vector<ChatTurn>& turns) {
  std::vector<dsengine::ChatMessage> messages;
  for (const auto& t : turns) messages.push_back({t.role, t.content, false, t.fields});
  return messages;
}

dsengine::ChatOptions options_of(const ChatOptions& options) {
  const auto json = [](const std::string& text, const char* what) {
    return text.empty() ? dsengine::Json() : dsengine::parse_json(text, what);
  };
  return {json(options.tools, "tools"), json(options.documents, "documents"), json(options.variables, "variables"), {}};
}

// One of the columns that a forward over replies gives, at the replies' tokens.
Columns reply_columns(const dsengine::Model& model, const std::vector<Reply>& replies, double temperature,
                      bool with_adapter) {
  check_replies(model, replies);
  at::NoGradGuard no_grad;
  Columns result;
  in_parts(
      replies.size(), [&](size_t i) { return int64_t(replies[i].prompt.size() + replies[i].tokens.size()); },
      [&](size_t first, size_t last) {
        const std::vector<Reply> part(replies.begin() + int64_t(first), replies.begin() + int64_t(last));
        const auto out = dsengine::forward(model, dsengine::select(experience_of(part, {}), model.device()),
                                           temperature, false, false, with_adapter);
        std::vector<float> column;
        dsengine::to_column(out.logp.defined() ? out.logp : out.value, column);
        auto at = column.begin();
        for (const auto& reply : part) {
          result.emplace_back(at, at + int64_t(reply.tokens.size()));
          at += int64_t(reply.tokens.size());
        }
      });
  return result;
}

dsengine::Dtype dtype_of(Precision precision) {
  return precision == Precision::bf16   ? dsengine::Dtype::BF16
         : precision == Precision::fp16 ? dsengine::Dtype::F16
                                        : dsengine::Dtype::F32;
}

void check_ids(const dsengine::Model& model, const Tokens& ids, const char* what, size_t i) {
  const auto& graph = model.graph();
  for (const auto id : ids)
    DSE_CHECK_USER(id >= 0 && id < graph.vocabulary, "{} {}: the id {} is outside the vocabulary of {}", what, i, id,
                   graph.vocabulary);
  DSE_CHECK_USER(!ids.empty(), "{} {} has no tokens", what, i);
  DSE_CHECK_USER(graph.max_positions == 0 || int64_t(ids.size()) <= graph.max_positions,
                 "{} {}: {} tokens exceed the model's {} positions", what, i, ids.size(), graph.max_positions);
}

void require_kind(const dsengine::Model& model, ModelKind kind, const char* what) {
  DSE_CHECK_USER(model.kind() == kind, "{}: {} needs a {}", model.origin().directory.string(), what,
                 kind == ModelKind::value ? "reward model or critic (…ForSequenceClassification)"
                                          : "language model (…ForCausalLM)");
}

}  // namespace

void check_replies(const dsengine::Model& model, const std::vector<Reply>& replies) {
  for (size_t i = 0; i < replies.size(); ++i) {
    const auto& r = replies[i];
    DSE_CHECK_USER(!r.prompt.empty() && !r.tokens.empty(), "reply {} has no prompt or no tokens", i);
    DSE_CHECK_USER(r.logprobs.empty() || r.logprobs.size() == r.tokens.size(), "reply {}: {} logprobs for {} tokens", i,
                   r.logprobs.size(), r.tokens.size());
    Tokens whole = r.prompt;
    whole.insert(whole.end(), r.tokens.begin(), r.tokens.end());
    check_ids(model, whole, "reply", i);
  }
}

dsengine::Experience experience_of(const std::vector<Reply>& replies, const std::vector<float>& scores) {
  dsengine::Experience e;
  int64_t prompt = 0;
  for (size_t i = 0; i < replies.size(); ++i) {
    const auto& r = replies[i];
    if (i > 0 && r.prompt != replies[i - 1].prompt) ++prompt;
    dsengine::ExperienceRow row{r.prompt, int64_t(r.prompt.size()), r.logprobs};
    row.tokens.insert(row.tokens.end(), r.tokens.begin(), r.tokens.end());
    const auto finish = dsengine::choice_named<dsengine::Finish>(r.finish).value_or(dsengine::Finish::record);
    e.add_row(std::move(row), prompt, finish, 1, std::vector<uint8_t>(r.tokens.size(), 1));
    if (!scores.empty()) e.score.back() = scores[i];
  }
  return e;
}

Text Text::load(const std::filesystem::path& directory, const std::filesystem::path& base) {
  return Text(std::make_shared<const Impl>(Impl{dsengine::TextModel::load(directory, directory, base)}));
}
bool Text::exists_in(const std::filesystem::path& directory, const std::filesystem::path& base) {
  return dsengine::TextModel::folder_of(directory, base).has_value();
}
Tokens Text::encode(const std::string& text, bool add_special_tokens) const {
  return impl_->text.tokenizer.encode(text, add_special_tokens);
}
std::string Text::decode(const Tokens& ids, bool skip_special_tokens) const {
  return impl_->text.tokenizer.decode(ids, skip_special_tokens);
}
Tokens Text::prompt(const std::vector<ChatTurn>& turns, const ChatOptions& options) const {
  return impl_->text.prompt_tokens(messages_of(turns), options_of(options));
}
std::string Text::prompt_text(const std::vector<ChatTurn>& turns, const ChatOptions& options) const {
  return impl_->text.prompt_text(messages_of(turns), true, options_of(options));
}
Tokens Text::answer(const std::vector<ChatTurn>& turns, const std::string& answer, const ChatOptions& options) const {
  return impl_->text.answer_tokens(messages_of(turns), answer, true, options_of(options));
}
Tokens Text::conversation(const std::vector<ChatTurn>& turns, const ChatOptions& options) const {
  const auto& text = impl_->text;
  auto messages = messages_of(turns);
  if (messages.empty() || messages.back().role != "assistant")
    return text.marked(text.chat.render(messages, false, options_of(options))).tokens;
  // Where the answers are not marked, only the last is looked for: a template may write earlier ones otherwise.
  for (auto& m : messages) m.train = m.role == "assistant" && (text.chat.marks_answers() || &m == &messages.back());
  auto all = text.conversation(messages, options_of(options));
  const auto end = std::find(all.mask.rbegin(), all.mask.rend(), 1).base();
  if (end != all.mask.begin()) all.tokens.resize(size_t(end - all.mask.begin()));
  return std::move(all.tokens);
}
int64_t Text::vocabulary() const { return impl_->text.tokenizer.vocab_size(); }
Tokens Text::end_tokens() const { return impl_->text.eos; }

Engine::Engine(const EngineOptions& options) {
  if (!dsengine::logging_is_set_up())
    dsengine::set_up_logging({.level = dsengine::LogLevel::warning, .file = {}, .quiet = true});
  dsengine::set_up_threads(options.threads);
  impl_ = std::make_shared<const Impl>(options.plugin_path, options.device);
}

Model Engine::load(const std::filesystem::path& directory, const Loading& loading) const {
  dsengine::check_model_directory(directory);
  const ModelKind kind = loading.head == HeadKind::stored     ? dsengine::stored_kind(directory, loading.base)
                         : loading.head == HeadKind::language ? ModelKind::language
                                                              : ModelKind::value;
  const bool narrow = loading.rounded_to_bf16 && impl_->session.kernels().on_card();
  dsengine::Role role{
      dsengine::load_model(directory, impl_->session.registry(), impl_->session.kernels(),
                           {.kind = kind,
                            .random_init = loading.random_init,
                            .new_value_head = loading.new_value_head,
                            .seed = loading.seed,
                            .dtype = narrow ? at::kBFloat16 : at::kFloat,
                            .base = loading.base,
                            .streamed = {.trained = loading.training.has_value() && loading.training->lora_rank == 0}}),
      nullptr,
      {}};
  if (loading.rounded_to_bf16 && !narrow) {
    at::NoGradGuard no_grad;
    for (auto* unit : role.model.units()) at::Tensor(unit->flat()).copy_(unit->flat().to(at::kBFloat16));
  }
  if (const auto& t = loading.training) {
    DSE_CHECK_USER(t->lora_rank >= 0 && t->learning_rate >= 0, "Training: lora_rank and learning_rate are at least 0");
    role.settings = {.learning_rate = t->learning_rate,
                     .beta1 = t->beta1,
                     .beta2 = t->beta2,
                     .epsilon = t->epsilon,
                     .weight_decay = t->weight_decay,
                     .grad_clip = t->grad_clip,
                     .schedule = dsengine::Schedule::constant};
    role.lora.rank = t->lora_rank, role.lora.alpha = t->lora_alpha, role.lora.targets = t->lora_targets;
    role.enable_training(loading.seed);
  }
  auto impl = std::make_shared<Model::Impl>(
      Model::Impl{impl_, std::make_shared<dsengine::Role>(std::move(role)), nullptr, std::nullopt,
                  dsengine::eos_ids(directory, loading.base), loading.random_init});
  if (Text::exists_in(directory, loading.base)) {
    impl->text = Text::load(directory, loading.base);
    impl->end_tokens = impl->text->end_tokens();
  }
  return Model(std::move(impl));
}

const Text* Model::text() const { return impl_->text ? &*impl_->text : nullptr; }
bool Model::is_value_model() const { return impl_->model().kind() == ModelKind::value; }
int64_t Model::vocabulary() const { return impl_->model().graph().vocabulary; }
int64_t Model::max_positions() const { return impl_->model().graph().max_positions; }
int64_t Model::parameter_count() const { return impl_->model().parameter_count(); }

Columns Model::log_probs(const std::vector<Tokens>& sequences, double temperature) const {
  require_kind(impl_->model(), ModelKind::language, "log-probabilities");
  // All tokens but the first are a reply to it.
  std::vector<Reply> replies;
  std::vector<size_t> which;
  for (size_t i = 0; i < sequences.size(); ++i) {
    check_ids(impl_->model(), sequences[i], "sequence", i);
    if (sequences[i].size() > 1) {
      replies.push_back({{sequences[i][0]}, {sequences[i].begin() + 1, sequences[i].end()}, {}, "", ""});
      which.push_back(i);
    }
  }
  Columns result(sequences.size());
  const Columns columns = reply_columns(impl_->model(), replies, temperature, true);
  for (size_t i = 0; i < which.size(); ++i) result[which[i]] = columns[i];
  return result;
}

Columns Model::log_probs(const std::vector<Reply>& replies, double temperature, bool with_adapter) const {
  require_kind(impl_->model(), ModelKind::language, "log-probabilities");
  return reply_columns(impl_->model(), replies, temperature, with_adapter);
}

Columns Model::values(const std::vector<Reply>& replies) const {
  require_kind(impl_->model(), ModelKind::value, "values");
  return reply_columns(impl_->model(), replies, 1, true);
}

std::vector<double> Model::rewards(const std::vector<Tokens>& sequences) const {
  require_kind(impl_->model(), ModelKind::value, "rewards");
  for (size_t i = 0; i < sequences.size(); ++i) check_ids(impl_->model(), sequences[i], "sequence", i);
  return dsengine::last_values(impl_->model(), {sequences.begin(), sequences.end()}, kTokensPerForward);
}

void Model::save(const std::filesystem::path& directory, const Saving& saving) const {
  DSE_CHECK_USER(!std::filesystem::exists(directory), "{} exists: choose another place to save to", directory.string());
  const auto& from = impl_->model().origin().directory;
  dsengine::AtomicDirectory out(directory);
  dsengine::save_model(impl_->model(), out.path(),
                       dsengine::TextModel::folder_of(from, impl_->model().origin().base).value_or(from),
                       {dtype_of(saving.precision), saving.max_shard_bytes});
  // Of a reward model that was trained on since, the moments would be another's.
  if (is_value_model() && !impl_->role->optimizer)
    if (const auto moments = dsengine::ScoreMoments::read(from); moments.sd > 0) moments.write(out.path());
  out.commit();
}

void Model::save_adapter(const std::filesystem::path& directory) const {
  const auto& model = impl_->model();
  DSE_CHECK_USER(model.adapter(), "{}: the model has no adapter to save", model.origin().directory.string());
  DSE_CHECK_USER(!impl_->drawn, "{}: the base's weights were drawn, no folder has them: save the whole model",
                 model.origin().directory.string());
  DSE_CHECK_USER(!std::filesystem::exists(directory), "{} exists: choose another place to save to", directory.string());
  dsengine::AtomicDirectory out(directory);
  dsengine::save_adapter(
      model, out.path(), model.origin().base,
      dsengine::TextModel::folder_of(model.origin().directory, model.origin().base).value_or(model.origin().directory));
  out.commit();
}

}  // namespace dse
