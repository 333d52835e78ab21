// The table of configuration keys: one row a key, grouped by the struct that the key fills.
//
//   KeyPrinter print;                // a visitor: what is done with each row
//   describe(print, run_config);     // calls print.value("seed", run_config.seed, "...", {.min = 0}), ...
//   write_text(path, print.text());
//
// Reading, checking, printing and the docs are visitors of these rows; a default is what the struct is born
// with. A visitor has value (a leaf), numbers (a list), table, list (of tables), paths, model (a folder or a stage's
// name), options and named_options (a plugin's own keys), plugin_key (one that stands among them, for the docs), and
// shared (keys that set defaults for what follows). Within a struct the leaves come before tables and lists, for so
// must TOML have them.
#pragma once
#include <limits>
#include <string_view>
#include <vector>

#include "run/config.h"

namespace dsengine {

// Of an integer key that states no largest value of its own.
constexpr int64_t kMostCount = (int64_t{1} << 31) - 1;

struct Limits {
  static constexpr double none = std::numeric_limits<double>::infinity();
  double min = -none, above = -none;      // at least, greater than
  double max = none, below = none;        // at most, less than
  std::vector<std::string> choices = {};  // for lists of names; empty: any
  bool required = false;
  bool in_working_directory = false;  // for paths: relative to the working directory, not to the file
  bool non_empty = false;             // for strings
  const char* formerly = nullptr;     // the key's older name, which is still taken, with a warning
};

// Of a key that is one of an enum's names.
template <Choice E>
Limits limits_of() {
  return {.choices = {kChoices<E>.begin(), kChoices<E>.end()}};
}

template <class Visitor>
void describe(Visitor& visit, OptimizerConfig& c) {
  visit.value("learning_rate", c.learning_rate, "AdamW's step size at the top of the schedule", {.min = 0});
  visit.value("beta1", c.beta1, "decay of the mean of gradients", {.min = 0, .below = 1});
  visit.value("beta2", c.beta2, "decay of the mean of squared gradients", {.min = 0, .below = 1});
  visit.value("epsilon", c.epsilon, "added to the root of the second mean", {.above = 0});
  visit.value("weight_decay", c.weight_decay, "decoupled; never on biases and norms", {.min = 0});
  visit.value("grad_clip", c.grad_clip, "largest global gradient norm; 0: off", {.min = 0});
  visit.value("schedule", c.schedule, "learning rate after the warm-up");
  visit.value("warmup_steps", c.warmup_steps, "steps of linear rise from 0", {.min = 0});
  visit.value("min_lr_ratio", c.min_lr_ratio, "learning rate at the schedule's end, as a share of its top",
              {.min = 0, .max = 1});
  visit.value(
      "moments", c.moments,
      "how AdamW keeps its two means, 8 bytes a parameter in fp32: in bf16 (4, rounded by counted draws) or 8bit "
      "(2: block-wise codes of matrices; Dettmers et al. 2022)");
  visit.value(
      "master_weights", c.master_weights,
      "with dtype bf16, keep a float32 value beside each weight that is trained (6 bytes a parameter in place of "
      "2); false: updates are rounded by counted draws, so that small ones count on the average");
  visit.value("ema_decay", c.ema_decay,
              "keep an exponential moving average of the weights with this decay a step, saved beside them "
              "(DeepSpeed-Chat: 0.992); 0: none",
              {.min = 0, .below = 1});
}

template <class Visitor>
void describe(Visitor& visit, DataSource& c) {
  visit.value("reader", c.reader, "dataset plugin", {.formerly = "adapter"});
  visit.value("path", c.path, "file or folder of records");
  visit.value("weight", c.weight, "how often it is drawn, relative to the other sources", {.above = 0});
  visit.options(c.options, "options of the reader");
}

template <class Visitor>
void describe(Visitor& visit, DataConfig& c) {
  visit.value("heldout_fraction", c.heldout_fraction,
              "share of the sources kept for evaluation, by content hash, where heldout is not given",
              {.min = 0, .below = 1});
  visit.numbers("split", c.split,
                "relative shares, as [2, 4, 4], of the parts that records of the sources fall into by content hash; "
                "empty: undivided",
                {.min = 0});
  visit.value("part", c.part,
              "the part of the split that is used, from 1; 0: the first for records, the second for pairs, the third "
              "for prompts",
              {.min = 0});
  visit.value("max_prompt_length", c.max_prompt_length,
              "tokens; a longer prompt keeps its first token and its end, and is counted", {.min = 1});
  visit.value("max_length", c.max_length, "tokens of prompt and answer in a record", {.min = 1});
  visit.value("too_long", c.too_long,
              "a record over max_length: left out, or without the answer's end and end token (pairs are left out all "
              "the same); both are counted");
  visit.value("train_on", c.train_on, "which tokens of a record are targets of the loss");
  visit.list("sources", c.sources, DataSource{}, "records to train on");
  visit.list("heldout", c.heldout, DataSource{}, "records to evaluate on, never trained on");
}

template <class Visitor>
void describe(Visitor& visit, LoraConfig& c) {
  visit.value("rank", c.rank, "of the adapter's pairs, best a multiple of 4; 0: none, the whole model is trained",
              {.min = 0, .max = 16384});
  visit.value("alpha", c.alpha, "the pairs' product is scaled by alpha / rank", {.above = 0});
  visit.value("rslora", c.rslora, "scale by alpha / sqrt(rank) instead (Kalajdzievski 2023)");
  visit.value("targets", c.targets, "which linears get a pair",
              {.choices = {"all", "q", "k", "v", "o", "gate", "up", "down", "linear"}});
  visit.value("also_train", c.also_train, "what of the base is trained beside the pairs; empty: none of it",
              {.choices = {"norms", "biases", "embeddings"}});
  visit.value("learning_rate", c.learning_rate,
              "of the pairs, on the role's schedule (DeepSpeed-Chat: 5e-4); 0: the role's", {.min = 0});
  visit.value("base", c.base,
              "how the layers' linears under the pairs are kept, 4 bytes a parameter in fp32: nf4 takes 0.56, and "
              "unpacks a layer each time it is read (QLoRA; Dettmers et al. 2023)");
}

template <class Visitor>
void describe(Visitor& visit, OffloadConfig& c) {
  visit.value("moments", c.moments, "the optimizers' moments: the update is made there");
  visit.value("gradients", c.gradients,
              "gradients, of which a layer's at a time are brought to be added to; with offload.moments");
  visit.value("average", c.average, "moving averages of the weights (ema_decay)");
  visit.value("weights", c.weights,
              "the layers of models that are trained without an adapter, fetched a layer at a time; with "
              "offload.moments, offload.gradients, and offload.average where there is one");
  visit.value("frozen", c.frozen,
              "the layers' linears of models that are not trained (reference, rewards, the weights under an adapter), "
              "fetched a layer at a time");
}

template <class Visitor>
void describe(Visitor& visit, RoleConfig& c) {
  visit.model("from", c.from, "Hugging Face folder or earlier stage; empty: the stage's default");
  describe(visit, c.optimizer);
  visit.table("lora", "train a low-rank adapter", [&] { describe(visit, c.lora); });
}

template <class Visitor>
void describe(Visitor& visit, RewardSource& c) {
  visit.value("name", c.name, "of its mean in metrics, reward_<name>, where there are several; empty: the plugin's");
  visit.value("plugin", c.plugin, "reward plugin", {.formerly = "adapter"});
  visit.model("from", c.from, "Hugging Face folder or earlier stage, where the plugin needs a model");
  visit.value("weight", c.weight, "factor of the score");
  visit.plugin_key(
      "on_failure", "string", "drop",
      "a score that is none (not finite in float32): drop leaves the answer out, stop ends the run (one of drop, "
      "stop). These three are the engine's own; a plugin that has an option of that name keeps it for itself");
  visit.plugin_key("deadline", "number", "0.0",
                   "seconds that one call, on all of a step's answers (of several ranks, its share), may take; past it "
                   "the run saves the last finished step and ends; 0: any (the plugin process has its own: of one "
                   "answer, which is then dropped)");
  visit.plugin_key("max_failures", "integer", "0", "more failed answers in a row end the run; 0: any number may fail");
  visit.options(c.options, "options of the plugin");
}

template <class Visitor>
void describe(Visitor& visit, RolloutConfig& c) {
  visit.value("batch_size", c.batch_size, "prompts a step", {.min = 1});
  visit.value("samples_per_prompt", c.samples_per_prompt, "answers to each prompt", {.min = 1});
  visit.value("max_response_length", c.max_response_length, "tokens", {.min = 1});
  visit.value("slots", c.slots, "sequences generated at once; 0: all of a step", {.min = 0});
  visit.value("keep_cache", c.keep_cache,
              "hold the memory for keys and values from one rollout to the next, while training goes on beside it");
  visit.value("exact", c.exact,
              "the actor generates and trains with kernels that give a token the same bits in both, so that its old "
              "log-probability is the rollout's: as it is on the CPU with the engine's kernels; on a card slower ones "
              "than it would take. A run for which there are none is refused");
  visit.value("weights", c.weights,
              "what answers are generated from: fp32, the weights as they are trained; bf16 and int8, copies of the "
              "linear layers' in so few bits, made anew for each step. Their answers are another policy's: see "
              "correction");
  visit.value("temperature", c.temperature, "0: greedy", {.min = 0});
  visit.value("top_p", c.top_p, "keep the likeliest tokens up to this probability", {.above = 0, .max = 1});
  visit.value("top_k", c.top_k, "keep so many likeliest tokens; 0: all", {.min = 0});
  visit.value("min_p", c.min_p, "keep tokens at least this share as likely as the likeliest; 0: all",
              {.min = 0, .max = 1});
  visit.value(
      "repetition_penalty", c.repetition_penalty,
      "divides positive and multiplies negative logits of the tokens of prompt and answer so far (Keskar 2019), "
      "in greedy evaluations too; 1: off",
      {.above = 0});
  visit.value(
      "stop", c.stop,
      "strings that end an answer; its reply is the text before, its tokens are trained on as they were sampled. "
      "One that is a special token stands for that token",
      {.non_empty = true});
  visit.value("stop_token_ids", c.stop_token_ids,
              "tokens that end an answer beside the model's end tokens (eos_token_id of its generation_config.json)",
              {.min = 0, .max = 2147483647});
  visit.value("dynamic_sampling", c.dynamic_sampling,
              "replace prompts whose answers all score the same, until the step is full of groups with a signal "
              "(DAPO, Yu et al. 2025)");
  visit.value("max_refills", c.max_refills, "rounds of such replacement a step; then it goes on with what there is",
              {.min = 1});
  visit.value(
      "correction", c.correction,
      "multiply the loss of a token (or row, as the algorithm has it) by the actor's probability of it before the "
      "update over that of the policy that answered: for replayed rollouts and other kernels; above "
      "correction_bound it is that (truncate) or 0 (mask)");
  visit.value("correction_bound", c.correction_bound, "largest such factor (Yao et al. 2025)", {.above = 1});
  visit.value("record", c.record, "folder to write rollouts to");
  visit.value("replay", c.replay, "folder to read rollouts from, instead of generating");
}

template <class Visitor>
void describe(Visitor& visit, PtxConfig& c) {
  visit.value("coefficient", c.coefficient, "factor of that loss (DeepSpeed-Chat: 27.8); 0: off", {.min = 0});
  visit.value("batch_size", c.batch_size, "texts an optimizer step; 0: mini_batch_size", {.min = 0});
  visit.value("max_length", c.max_length, "tokens of a text; a longer one is dropped and counted", {.min = 2});
  visit.list("sources", c.sources, DataSource{}, "the texts: any records that supervised fine-tuning takes");
}

template <class Visitor>
void describe(Visitor& visit, StageConfig& c) {
  visit.value("name", c.name, "names the stage and its folder in output_dir", {.required = true});
  visit.value("algorithm", c.algorithm, "algorithm plugin", {.required = true});
  visit.value("epochs", c.epochs, "passes over the data, each record once in each; ignored where max_steps is given",
              {.min = 1});
  visit.value("max_steps", c.max_steps,
              "optimizer steps, or rollouts where there are any, of equal size; 0: from epochs, whose last step takes "
              "what is left",
              {.min = 0});
  visit.value("mini_batch_size", c.mini_batch_size, "rows an optimizer step; a pair counts two", {.min = 1});
  visit.value("micro_batch_size", c.micro_batch_size, "rows a forward; 0: the minibatch", {.min = 0});
  visit.value("ppo_epochs", c.ppo_epochs, "passes over a rollout", {.min = 1});
  visit.value("target_kl", c.target_kl,
              "skip a rollout's later minibatches once the KL to its sampler passes 1.5 times this; 0: never",
              {.min = 0});
  visit.value("checkpoint_every", c.checkpoint_every, "steps; 0: none", {.min = 0});
  visit.value("keep_checkpoints", c.keep_checkpoints, "older ones are removed", {.min = 1});
  visit.value("eval_every", c.eval_every, "steps; 0: at the start and end only", {.min = 0});
  visit.value("eval_rows", c.eval_rows, "rows of the held-out data an evaluation reads", {.min = 1});
  visit.value("log_every", c.log_every, "steps between log lines", {.min = 1});
  visit.value("zero_stage", c.zero_stage,
              "what of a trained model's states each rank keeps its part of alone (ZeRO, Rajbhandari et al. 2020): 0: "
              "nothing; 1: moments; 2: moments and gradients",
              {.min = 0, .max = 2});
  visit.value("recompute", c.recompute, "recompute each layer in the backward pass: less memory, more time");
  visit.table("offload",
              "what lies in the host's memory beside the device's; the results are the same bits. On a cpu it saves "
              "nothing",
              [&] { describe(visit, c.offload); });
  visit.shared([&] {
    OptimizerConfig optimizer = c.actor.optimizer;
    describe(visit, optimizer);
    c.actor.optimizer = c.critic.optimizer = optimizer;
    LoraConfig lora = c.actor.lora;
    visit.table("lora", "train a low-rank adapter of the actor, critic or reward model, not the model itself",
                [&] { describe(visit, lora); });
    c.actor.lora = c.critic.lora = lora;
  });
  visit.table("actor", "the policy", [&] { describe(visit, c.actor); });
  visit.table("critic", "the value model", [&] { describe(visit, c.critic); });
  visit.table("reference", "the policy that KL is measured against; never trained", [&] {
    visit.model("from", c.reference.from, "Hugging Face folder or earlier stage; empty: the actor's start");
  });
  visit.table("reward", "what scores a response", [&] { describe(visit, c.reward); });
  visit.list("rewards", c.rewards, RewardSource{}, "several, in place of reward: their weighted sum is the score");
  visit.table("rollout", "generation", [&] { describe(visit, c.rollout); });
  visit.table("ptx", "language-model loss on texts, added to the actor's", [&] { describe(visit, c.ptx); });
  visit.table("data", "overrides [data] key by key", [&] { describe(visit, c.data); });
  visit.named_options("plugin", c.plugin, "options of a plugin, by its name");
}

template <class Visitor>
void describe(Visitor& visit, ModelConfig& c) {
  visit.value("actor", c.actor, "Hugging Face folder that stages start from");
  visit.value("tokenizer", c.tokenizer, "folder of the tokenizer; empty: the actor's");
  visit.value("init", c.init, "random: config.json alone is read and weights are drawn from the seed");
}

template <class Visitor>
void describe(Visitor& visit, PluginFile& c) {
  visit.value("file", c.file, "the library", {.required = true});
  visit.value("sha256", c.sha256, "64 hex digits, checked before the library is opened; empty: unchecked");
}

template <class Visitor>
void describe(Visitor& visit, RunConfig& c) {
  visit.value("seed", c.seed, "of every random draw", {.min = 0});
  visit.value("output_dir", c.output_dir, "folder of the run, relative to the working directory",
              {.in_working_directory = true});
  visit.value("resume", c.resume, "auto: go on from the last checkpoint; never: refuse a used output_dir");
  visit.value("device", c.device,
              "where models are and compute: cpu; cuda or cuda:1, a graphics card; auto: the first card, else the cpu");
  visit.value("dtype", c.dtype,
              "what models compute in: fp32; bf16, with float32 values beside those that are trained; auto: bf16 on a "
              "graphics card, else fp32");
  visit.value("threads", c.threads,
              "0: all cores this process may use, of several ranks on a machine each its share; of more than these, so "
              "many",
              {.min = 0});
  visit.value("collective_timeout", c.collective_timeout,
              "seconds that a rank waits for the others before the run is given up; 0: for ever", {.min = 0});
  visit.value("memory_limit", c.memory_limit,
              "GiB that the run's tensors may take together; it does not begin where a stage would need more (dsengine "
              "plan), and ends where one does; 0: the machine's memory, or its control group's, without the program",
              {.min = 0, .max = 1e9});
  visit.value("log_level", c.log_level, "least level that is logged");
  visit.value("tensorboard", c.tensorboard,
              "write event files for TensorBoard to <stage>/tensorboard, beside metrics.jsonl and eval.jsonl");
  visit.paths("plugin_path", c.plugin_path, "folders searched for plugins first");
  visit.list("plugins", c.plugins, PluginFile{}, "libraries beside those on the search path");
  visit.table("model", "the models that stages start from", [&] { describe(visit, c.model); });
  StageConfig stage;
  visit.shared([&] {
    visit.table("data", "records for all stages; a stage's own data overrides it key by key",
                [&] { describe(visit, stage.data); });
    LoraConfig lora;
    visit.table("lora", "an adapter for all stages; a stage's own lora overrides it key by key",
                [&] { describe(visit, lora); });
    stage.actor.lora = stage.critic.lora = lora;
  });
  visit.list("stage", c.stages, stage, "one step of the run; they run in the order of the file");
}

}  // namespace dsengine
