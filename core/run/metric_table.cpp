#include "run/metric_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace dsengine {
namespace {

constexpr auto kTraining = MetricFile::training, kEvaluation = MetricFile::evaluation, kBoth = MetricFile::both;

constexpr std::array kMetrics = {
    MetricRow{"reward", kBoth, "", "score of an answer, as the reward plugin gave it; held out: of sampled answers",
              true},
    MetricRow{"reward_standard_error", kEvaluation, "", "of the mean above, over the prompts"},
    MetricRow{"greedy_reward", kEvaluation, "", "the same for the likeliest answers (temperature 0)", true},
    MetricRow{"greedy_reward_standard_error", kEvaluation, "", "of the mean above, over the prompts"},
    MetricRow{"loss", kBoth, "", "the algorithm's loss, averaged over the minibatches of the step", true},
    MetricRow{"kl", kTraining, "nats/answer",
              "log p(answer) of the actor less the reference's, before the step's update", true},
    MetricRow{"kl_k3", kTraining, "nats/answer", "the same divergence by an estimator that is never negative", true},
    MetricRow{"entropy", kBoth, "nats/token",
              "of the actor's distribution at the answers' tokens, in the step's first epoch as far as it went", true},
    MetricRow{"response_length", kBoth, "tokens", "of an answer, its end token included", true},
    MetricRow{"eos_fraction", kBoth, "share", "answers that ended by themselves, not at the greatest length", true},
    MetricRow{"greedy_response_length", kEvaluation, "tokens", "of the likeliest answers"},
    MetricRow{"greedy_eos_fraction", kEvaluation, "share", "of the likeliest answers"},
    MetricRow{"grad_norm", kTraining, "",
              "global norm of the gradient before it is clipped, averaged over the minibatches", true},
    MetricRow{"critic_grad_norm", kTraining, "", "the same, of the critic beside an actor", true},
    MetricRow{"learning_rate", kTraining, "", "of the step, after warm-up and schedule"},
    MetricRow{"critic_learning_rate", kTraining, "", "the same, of the critic beside an actor"},
    MetricRow{"reward_<name>", kBoth, "", "mean score of one of several `rewards`, before its weight"},
    MetricRow{"greedy_reward_<name>", kEvaluation, "", "the same for the likeliest answers"},
    MetricRow{"ptx_loss", kTraining, "nats/token", "on the texts that `ptx` mixes in, before its coefficient", true},
    MetricRow{"minibatches_skipped", kTraining, "minibatches", "that `target_kl` left out of the step's updates"},
    MetricRow{"groups_replaced", kTraining, "prompts",
              "whose answers all scored the same and which `rollout.dynamic_sampling` replaced"},
    MetricRow{"reward_failed", kBoth, "answers", "that the reward gave no score and the step, or the mean, left out"},
    MetricRow{"greedy_reward_failed", kEvaluation, "answers", "the same of the likeliest answers"},
    MetricRow{"rollout_logp_difference_mean", kTraining, "nats/token",
              "between a token's log-probability when it was sampled and in the training forward of the step's first "
              "minibatch; 0 with the kernels that ship, and near it or something is wrong"},
    MetricRow{"rollout_logp_difference_max", kTraining, "nats/token", "the largest of those differences"},
    MetricRow{
        "rollout_ratio_mean", kTraining, "",
        "probability that the actor gives what a loss is of (a token, or an answer) before the step's update, over "
        "that of the policy that answered; with `rollout.correction`, before it cuts"},
    MetricRow{"rollout_ratio_max", kTraining, "", "the largest of those ratios"},
    MetricRow{"rollout_ratio_cut", kTraining, "share", "of those ratios, above `rollout.correction_bound`"},
    MetricRow{"tokens", kBoth, "tokens", "training: prompts and answers of the step; held out: targets of the loss"},
    MetricRow{"rows", kEvaluation, "rows", "held-out records or prompts that were read"},
    MetricRow{"tokens_per_second", kTraining, "tokens/s", "tokens / seconds"},
    MetricRow{"seconds", kTraining, "s", "wall time of the step, without evaluations and checkpoints"},
    MetricRow{"seconds_generate", kTraining, "s", "generating answers"},
    MetricRow{"seconds_pack", kTraining, "s", "of these, making `rollout.weights` narrower; where they are"},
    MetricRow{"seconds_score", kTraining, "s", "the reward and the reference"},
    MetricRow{"seconds_actor", kTraining, "s",
              "forward, backward and update of the actor, or of the only model there is"},
    MetricRow{"seconds_critic", kTraining, "s", "forward, backward and update of the critic"},
    MetricRow{"seconds_other", kTraining, "s", "the rest: data, advantages, losses on the host"},
    MetricRow{"seconds_moving", kTraining, "s",
              "of all these, fetching what `offload` or `lora.base` keeps elsewhere or narrower, and taking weights "
              "and gradients there; where anything is kept so"},
    MetricRow{"moved_mb", kTraining, "MiB",
              "how much went between the two memories in those seconds; 0 where weights were only unpacked"},
    MetricRow{"memory_weights_mb", kTraining, "MiB",
              "most memory in the step that weights took: of all roles, and of reward models"},
    MetricRow{"memory_gradients_mb", kTraining, "MiB", "the same of gradients"},
    MetricRow{"memory_moments_mb", kTraining, "MiB", "the same of the optimizers' moments"},
    MetricRow{"memory_average_mb", kTraining, "MiB", "the same of moving averages"},
    MetricRow{"memory_rollout_weights_mb", kTraining, "MiB",
              "the same of narrower copies of weights that answers are generated from"},
    MetricRow{"memory_kv_cache_mb", kTraining, "MiB", "the same of keys and values of answers in the making"},
    MetricRow{"memory_activations_mb", kTraining, "MiB",
              "the same of what forwards and backwards compute with and keep for each other"},
    MetricRow{"memory_workspace_mb", kTraining, "MiB", "the same of the kernels' workspaces"},
    MetricRow{"memory_columns_mb", kTraining, "MiB", "the same of the answers' tokens and columns on the host"},
    MetricRow{"memory_other_mb", kTraining, "MiB", "the same of tensors for nothing of these"},
    MetricRow{"memory_peak_mb", kTraining, "MiB", "the most in the step of all these at once"},
    MetricRow{"memory_peak_generate_mb", kTraining, "MiB", "the most while answers were generated"},
    MetricRow{"memory_peak_score_mb", kTraining, "MiB", "the most while the reward and the reference worked"},
    MetricRow{"memory_peak_train_mb", kTraining, "MiB", "the most while the actor or the critic worked"},
    MetricRow{"memory_offloaded_mb", kTraining, "MiB",
              "beside all these, the most that `offload` had in the host's memory; where there is any"},
    MetricRow{"peak_memory_mb", kTraining, "MiB", "most memory that the process has had resident so far"},
    MetricRow{"wall_time", kBoth, "s", "when the line was written, since 1970; without `eval_` in `eval.jsonl`"},
};

std::string_view file_text(MetricFile file) {
  return file == kTraining ? "metrics" : file == kEvaluation ? "eval" : "both";
}

}  // namespace

std::span<const MetricRow> metric_rows() { return kMetrics; }

const MetricRow* find_metric(std::string_view name) {
  const auto row = std::find_if(kMetrics.begin(), kMetrics.end(), [&](const MetricRow& m) { return m.name == name; });
  return row == kMetrics.end() ? nullptr : &*row;
}

std::string_view phase_of_metric(std::string_view name) {
  constexpr std::string_view prefix = "seconds_";
  return name.starts_with(prefix) && find_metric(name) ? name.substr(prefix.size()) : std::string_view();
}

std::string metric_reference_markdown() {
  std::string text =
      "# Metrics\n\n"
      "A stage writes a line of JSON for each step to `<output_dir>/<stage>/metrics.jsonl`, and one for each "
      "evaluation\n"
      "on held-out data to `eval.jsonl`. A line begins with `stage` and `step` (steps done; an evaluation at 0 is of "
      "the\n"
      "model that the stage starts from). In `eval.jsonl` a name has `eval_` before it, and `samples` holds a few "
      "answers\n"
      "in words: `prompt`, `reply`, `reward` and whether they were `greedy`. A number that is NaN or infinite is "
      "`null`.\n\n"
      "TensorBoard (`tensorboard --logdir <output_dir>`) shows them as `train/<name>` and `eval/<name>`; `dsengine "
      "report\n"
      "<output_dir>` draws them on one page.\n\n"
      "These are the engine's own. An algorithm adds its own to both files:\n"
      "[algorithm_metrics.md](algorithm_metrics.md) lists those of the algorithms that ship.\n\n"
      "| metric | in | unit | meaning |\n|---|---|---|---|\n";
  for (const MetricRow& row : kMetrics)
    text += fmt::format("| `{}` | {} | {} | {} |\n", row.name, file_text(row.file), row.unit, row.meaning);
  return text;
}

}  // namespace dsengine
