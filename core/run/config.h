// The configuration of a run, as structs; what they are born with are the defaults.
//
//   RunConfig config = load_config("examples/rlhf_tiny.toml");       // run/config_reader.h
//   for (const StageConfig& stage : config.stages) …
//
// Every field is a row of one table of keys (run/config_keys.h), which has its name, range and help.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/choice.h"
#include "base/moment_format.h"
#include "base/number_format.h"
#include "base/stream_settings.h"
#include "plugin/settings.h"
#include "run/logging.h"

namespace dsengine {

// What becomes of a record that is longer than max_length: left out, or its answer cut; pairs are left out all the
// same.
enum class TooLong { drop, truncate };
template <>
inline constexpr auto kChoices<TooLong> = std::to_array<const char*>({"drop", "truncate"});

// Which tokens of a record are targets of the loss.
enum class TrainOn { completion, all };
template <>
inline constexpr auto kChoices<TrainOn> = std::to_array<const char*>({"completion", "all"});

// The learning rate after the warm-up.
enum class Schedule { cosine, linear, constant };
template <>
inline constexpr auto kChoices<Schedule> = std::to_array<const char*>({"cosine", "linear", "constant"});

// What a unit of the loss counts whose ratio of probabilities, of the actor's to those of the policy that answered, is
// above the bound: the bound, or nothing. Below it, the ratio.
enum class Correction { none, truncate, mask };
template <>
inline constexpr auto kChoices<Correction> = std::to_array<const char*>({"none", "truncate", "mask"});

// How answers are generated: from the very weights that are trained, or from narrower copies of them.
enum class WeightFormat { fp32, bf16, int8 };
template <>
inline constexpr auto kChoices<WeightFormat> = std::to_array<const char*>({"fp32", "bf16", "int8"});

// random: config.json alone is read, and weights are drawn from the seed.
enum class ModelInit { pretrained, random };
template <>
inline constexpr auto kChoices<ModelInit> = std::to_array<const char*>({"pretrained", "random"});

// A used output_dir: gone on with, or refused.
enum class Resume { from_last, never };
template <>
inline constexpr auto kChoices<Resume> = std::to_array<const char*>({"auto", "never"});

struct DataSource {
  std::string reader = "jsonl";  // dataset plugin
  std::filesystem::path path;
  double weight = 1.0;
  OptionValues options;  // every other key of the table
};

struct DataConfig {
  std::vector<DataSource> sources;  // trained on
  std::vector<DataSource> heldout;  // evaluated on, never trained on
  double heldout_fraction = 0;      // without `heldout`: this share of the sources, by content hash
  std::vector<double> split;        // relative shares of the parts the sources fall into; empty: undivided
  int64_t part = 0;                 // which of them a stage uses, from 1; 0: by what its algorithm reads
  int64_t max_prompt_length = 512;  // tokens; longer prompts keep their first token and their end
  int64_t max_length = 1024;        // tokens of prompt and answer in a record
  TooLong too_long = TooLong::drop;
  TrainOn train_on = TrainOn::completion;
};

struct OptimizerConfig {
  double learning_rate = 1e-5;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.0;
  double grad_clip = 1.0;  // global norm; 0: off
  Schedule schedule = Schedule::cosine;
  int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;  // of learning_rate, at the end of the schedule
  MomentFormat moments = MomentFormat::fp32;
  bool master_weights = true;  // float32 beside bfloat16
  double ema_decay = 0;        // of a moving average of the weights, saved beside them; 0: none is kept
};

// A low-rank adapter that is trained instead of the model (Hu et al. 2021).
struct LoraConfig {
  int64_t rank = 0;  // 0: none; the whole model is trained
  double alpha = 16;
  bool rslora = false;
  std::vector<std::string> targets{"all"};
  std::vector<std::string> also_train;     // norms, biases, embeddings
  double learning_rate = 0;                // of the adapter; 0: the role's
  FrozenFormat base = FrozenFormat::fp32;  // of the linears under it
};

// What lies in another memory than the device's, and is brought for as long as it is read.
struct OffloadConfig {
  bool moments = false;
  bool gradients = false;  // with moments
  bool average = false;
  bool weights = false;  // layers of models that are trained without an adapter; with all of these
  bool frozen = false;   // the layers' linears of models that are not trained, and under adapters
};

struct RoleConfig {
  std::string from;  // HF directory, or the name of an earlier stage; "": the stage's default
  OptimizerConfig optimizer;
  LoraConfig lora;
};

struct RewardSource {
  std::string name;              // in metrics, where there are several; "": the plugin's
  std::string plugin = "model";  // reward plugin
  std::string from;              // HF directory or stage, where the plugin needs a model
  double weight = 1.0;
  OptionValues options;
};

struct RolloutConfig {
  int64_t batch_size = 64;  // prompts a step
  int64_t samples_per_prompt = 1;
  int64_t max_response_length = 128;
  int64_t slots = 0;        // sequences generated at once; 0: all of a step
  bool keep_cache = false;  // memory for keys and values is held while training goes on
  bool exact = false;       // log-probabilities have the bits that training gives them, or the run is refused
  WeightFormat weights = WeightFormat::fp32;
  double temperature = 1.0, top_p = 1.0;
  int64_t top_k = 0;
  double min_p = 0.0, repetition_penalty = 1.0;
  std::vector<std::string> stop;  // strings and tokens that end an answer beside the model's end tokens
  std::vector<int64_t> stop_token_ids;
  bool dynamic_sampling = false;             // groups whose scores are all equal are replaced by other prompts'
  int64_t max_refills = 10;                  // rounds of such replacement a step
  Correction correction = Correction::none;  // for answers of another policy than the one that is trained
  double correction_bound = 2.0;             // of a ratio of probabilities
  std::filesystem::path record, replay;      // folders
};

// Language-model loss on texts beside the algorithm's own ("PPO-ptx", Ouyang et al. 2022).
struct PtxConfig {
  double coefficient = 0;    // 0: off
  int64_t batch_size = 0;    // texts an optimizer step; 0: mini_batch_size
  int64_t max_length = 512;  // tokens; a longer text is dropped and counted
  std::vector<DataSource> sources;
};

struct StageConfig {
  std::string name, algorithm;
  int64_t epochs = 1;            // over the data; ignored where max_steps is given
  int64_t max_steps = 0;         // optimizer steps (rollout algorithms: rollouts); 0: from epochs
  int64_t mini_batch_size = 32;  // rows (pairs count two) an optimizer step
  int64_t micro_batch_size = 0;  // rows a forward; 0: the minibatch
  int64_t ppo_epochs = 1;        // passes over a rollout
  double target_kl = 0;          // a rollout's later minibatches are skipped once KL passes 1.5 times this; 0: never
  int64_t checkpoint_every = 100, keep_checkpoints = 2;
  int64_t eval_every = 0, eval_rows = 256;  // 0: at the start and end only
  int64_t log_every = 10;
  int64_t zero_stage = 0;  // what of the trained models' states ranks share out (param/shards.h)
  bool recompute = false;  // recompute each layer in the backward pass instead of keeping its activations
  OffloadConfig offload;
  RoleConfig actor, critic, reference;
  RewardSource reward;
  std::vector<RewardSource> rewards;  // where given, their weighted sum takes the place of `reward`
  RolloutConfig rollout;
  PtxConfig ptx;
  DataConfig data;
  bool has_average() const { return actor.optimizer.ema_decay > 0 || critic.optimizer.ema_decay > 0; }
  // What scores an answer: `rewards`, else `reward`.
  std::vector<RewardSource> reward_sources() const {
    return rewards.empty() ? std::vector<RewardSource>{reward} : rewards;
  }
  std::map<std::string, OptionValues> plugin;  // by plugin name
};

struct ModelConfig {
  std::filesystem::path actor;      // HF directory that stages start from
  std::filesystem::path tokenizer;  // folder; "": the actor's
  ModelInit init = ModelInit::pretrained;
};

struct RunConfig {
  uint64_t seed = 1234;
  std::filesystem::path output_dir = "runs/default";
  Resume resume = Resume::from_last;
  int64_t threads = 0;               // 0: all cores this process may use
  double collective_timeout = 1800;  // seconds that a rank waits for the others; 0: for ever
  std::string device = "cpu";        // as open_device has it
  NumberFormat dtype = NumberFormat::automatic;
  double memory_limit = 0;  // GiB of tensors; 0: what the machine has beside the program
  LogLevel log_level = LogLevel::info;
  bool tensorboard = true;  // event files, made from metrics.jsonl and eval.jsonl
  std::vector<PluginFile> plugins;
  std::vector<std::filesystem::path> plugin_path;
  ModelConfig model;
  std::vector<StageConfig> stages;
  std::string resolved;  // the whole configuration as TOML, defaults filled in
};

}  // namespace dsengine
