// The engine as a library: load models, generate, score, train. The program dsengine is written on it; a whole PPO loop
// on it is examples/custom_loop/custom_loop.cpp.
//
//   dse::Engine engine({.threads = 4});
//   dse::Model actor = engine.load("models/tiny", {.training = dse::Training{.learning_rate = 1e-5}});
//   auto replies = actor.generate({actor.text()->prompt({{"user", "Hello"}})}, {.max_new_tokens = 32});
//   dse::train_step(&actor, nullptr, replies, {}, [](dse::MicroBatch& micro) { …; return loss; });
//   actor.save("out/model");
//
// Link dsengine::dsengine (find_package(dsengine)); no header of LibTorch is needed. Every function throws
// std::runtime_error, whose text is one line that says what is wrong and where; warnings go to stderr. Handles are
// cheap to copy and share what they stand for. One thread at a time; the work itself runs on the engine's threads.
// On a machine that others use, start with GOMP_SPINCOUNT=2000 in the environment, as the program does for itself:
// LibTorch's OpenMP reads it when it is loaded, and its waiting threads otherwise take the processors of those at work.
// The first Engine puts a counting allocator around LibTorch's for host memory.
// Installed as <dsengine/engine.hpp>.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace dse {

using Tokens = std::vector<int32_t>;
using Columns = std::vector<std::vector<float>>;  // a number for each token of each sequence

struct ChatTurn {
  std::string role, content;  // role: user, assistant, system
  std::string fields{};       // a JSON object of what else the model's chat template reads of it: "tool_calls", …
};

// What a chat template may read beside the conversation, as JSON; "": nothing.
struct ChatOptions {
  std::string tools{}, documents{};  // lists
  std::string variables{};           // an object: "enable_thinking", …
};

// A tokenizer with the form of conversations.
class [[gnu::visibility("default")]] Text {
 public:
  // A Hugging Face folder, or an adapter's. base: of an adapter, in place of the one that it names.
  static Text load(const std::filesystem::path& directory, const std::filesystem::path& base = {});
  static bool exists_in(const std::filesystem::path& directory, const std::filesystem::path& base = {});

  Tokens encode(const std::string& text, bool add_special_tokens = true) const;
  std::string decode(const Tokens& ids, bool skip_special_tokens = true) const;
  // A conversation up to the opening of the answer, by the model's chat template, as transformers' apply_chat_template.
  Tokens prompt(const std::vector<ChatTurn>& turns, const ChatOptions& options = {}) const;
  std::string prompt_text(const std::vector<ChatTurn>& turns, const ChatOptions& options = {}) const;
  // What follows the prompt where the assistant answers so, as training reads it: the ending token included.
  Tokens answer(const std::vector<ChatTurn>& turns, const std::string& answer, const ChatOptions& options = {}) const;
  // A whole conversation as training reads it: where the last turn is the assistant's, up to and with its end.
  Tokens conversation(const std::vector<ChatTurn>& turns, const ChatOptions& options = {}) const;
  int64_t vocabulary() const;
  Tokens end_tokens() const;  // any of them ends an answer

  struct Impl;  // the engine's own
  explicit Text(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

enum class HeadKind {
  stored,    // what config.json says
  language,  // logits over the vocabulary
  value      // one number: reward models and critics (…ForSequenceClassification)
};

// How a model is trained: AdamW, on all its weights or on an adapter beside them (rank > 0).
struct Training {
  double learning_rate = 1e-5, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0, grad_clip = 1;
  int64_t lora_rank = 0;
  double lora_alpha = 16;
  std::vector<std::string> lora_targets{"all"};
};

struct Loading {
  HeadKind head = HeadKind::stored;
  bool rounded_to_bf16 = false;  // weights as bfloat16 has them; the CPU computes in float32 with them, a card in bf16
  bool random_init = false;      // config.json alone is read, weights are drawn from `seed`
  bool new_value_head = false;   // a language model becomes a value model whose head begins at zero
  uint64_t seed = 1234;
  std::optional<Training> training{};
  std::filesystem::path base{};  // of an adapter, in place of the one that it names
};

struct Sampling {
  int64_t max_new_tokens = 128, samples = 1;
  double temperature = 1;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1, min_p = 0, repetition_penalty = 1;
  bool ignore_end = false;
  std::vector<std::string> stop{};
  uint64_t seed = 1234, step = 0;  // draws depend on (seed, step, row, position) alone
  std::vector<uint64_t> rows{};    // names the prompts' draws; empty: their places
  int64_t slots = 32;              // sequences at once
};

struct Reply {
  Tokens prompt, tokens;        // tokens: the ending one included
  std::vector<float> logprobs;  // of each token: log-softmax(logits / temperature)
  std::string text;             // without special tokens and stop string; "" where there is no tokenizer
  std::string finish;           // eos, length, stop
};

enum class Precision { fp32, fp16, bf16 };

struct Saving {
  Precision precision = Precision::fp32;
  uint64_t max_shard_bytes = 5'000'000'000;
};

class [[gnu::visibility("default")]] Model {
 public:
  const Text* text() const;  // null: the folder has no tokenizer
  bool is_value_model() const;
  int64_t vocabulary() const;
  int64_t max_positions() const;  // 0: no bound
  int64_t parameter_count() const;

  // What transformers begins with when the prompt is an empty text: bos_token_id. Nothing where the model has none.
  Tokens empty_prompt() const;
  // An error where generate would refuse the prompt: too long for the model's positions, or ids that it has not.
  void check_prompt(const Tokens& prompt, int64_t max_new_tokens) const;
  // `samples` replies to each prompt, adjacent. on_text gets text as it comes, never half a character.
  std::vector<Reply> generate(const std::vector<Tokens>& prompts, const Sampling& sampling = {},
                              const std::function<void(size_t reply, const std::string& text)>& on_text = {}) const;
  // log p(token t | before) for t = 1 … n - 1 of each sequence.
  Columns log_probs(const std::vector<Tokens>& sequences, double temperature = 1) const;
  // Of the replies' own tokens. with_adapter false: as the base says, an adapter's reference.
  Columns log_probs(const std::vector<Reply>& replies, double temperature = 1, bool with_adapter = true) const;
  // A value model: before each of the replies' tokens.
  Columns values(const std::vector<Reply>& replies) const;
  // A value model: at each sequence's last token.
  std::vector<double> rewards(const std::vector<Tokens>& sequences) const;

  // A Hugging Face folder that appears as a whole, an adapter merged in. It must not exist.
  void save(const std::filesystem::path& directory, const Saving& saving = {}) const;
  // The adapter alone, as PEFT stores it.
  void save_adapter(const std::filesystem::path& directory) const;

  struct Impl;  // the engine's own
  explicit Model(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

struct EngineOptions {
  std::vector<std::filesystem::path> plugin_path{};  // folders searched for plugins first
  int64_t threads = 0;  // 0: all cores this process may use; of the whole process: the last Engine made decides
  // cpu; cuda or cuda:1, a graphics card; auto: the first card where it can be used, else the host.
  std::string device = "cpu";
};

class [[gnu::visibility("default")]] Engine {
 public:
  explicit Engine(const EngineOptions& options = {});
  Model load(const std::filesystem::path& directory, const Loading& loading = {}) const;

  struct Impl;  // the engine's own
  const std::shared_ptr<const Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// A part of a step's replies in the middle of a training step: what the models say of their tokens now, and the slopes
// of the caller's loss by it, zeroed, to be filled.
struct MicroBatch {
  size_t first;                        // its first reply's place in the step
  Columns logp, entropy, value;        // logp, entropy: of the actor; value: of the critic
  Columns d_logp, d_entropy, d_value;  // of the loss that is returned
};

struct StepResult {
  double loss = 0, grad_norm = 0, critic_grad_norm = 0;
};

struct StepOptions {
  size_t micro_batch_size = 8;  // replies a forward
  double rate_factor = 1;       // of the learning rates, for a schedule
  double temperature = 1;       // the replies were sampled at: of logp and entropy
};

// One update of the models (either may be null) by a loss of the caller's: called for micro_batch_size replies at a
// time, it returns their share of the loss.
[[gnu::visibility("default")]] StepResult train_step(Model* actor, Model* critic, const std::vector<Reply>& replies,
                                                     const StepOptions& options,
                                                     const std::function<double(MicroBatch&)>& loss);

using Option = std::variant<bool, int64_t, double, std::string>;

struct TrainerOptions {
  std::string algorithm;                    // plugin
  std::map<std::string, Option> options{};  // of the plugin
  // Without a reference, an actor with an adapter is measured against its base.
  std::optional<Model> actor{}, critic{}, reference{}, reward{};
  int64_t mini_batch_size = 32, micro_batch_size = 0, epochs = 1;  // replies; micro 0: the minibatch
  double temperature = 1;
  uint64_t seed = 1234;
};

// Steps of an algorithm plugin: what the program's stages do.
class [[gnu::visibility("default")]] Trainer {
 public:
  Trainer(const Engine& engine, const TrainerOptions& options);
  // Replies with a score each (rollouts), or without (records; pairs: chosen and rejected adjacent). Replies to one
  // prompt are adjacent. Returns the step's metrics.
  std::map<std::string, double> step(const std::vector<Reply>& replies, const std::vector<float>& scores = {},
                                     double rate_factor = 1);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

struct Run {
  std::filesystem::path config{};   // "": the built-in default
  std::vector<std::string> sets{};  // key=value, over the file
  std::string algorithm{};          // that algorithm's stage and what it needs; "": every stage
  std::vector<std::filesystem::path> plugin_path{};
  bool accept_changes =
      false;  // go on where a model, a record, a plugin or an output is another than a stage remembers
};

struct RunEnd {
  std::filesystem::path model{};  // folder of the last stage's model; "" where a signal stopped the run
  int signal = 0;                 // that signal; 0: the run ended
};

// Runs a configuration, or goes on with it.
[[gnu::visibility("default")]] RunEnd run(const Run& run);

}  // namespace dse
