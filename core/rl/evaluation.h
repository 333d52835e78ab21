// What held-out data says of a stage's models, as the fields of a line of eval.jsonl.
//
//   Json records = evaluate_records(heldout, 256, 32, algorithm, learner);    // eval_loss, eval_accuracy, …
//   Json answers = evaluate_rollouts(heldout, 256, rollout, scorer, phases);  // eval_reward, samples, …
#pragma once
#include "rl/learner.h"
#include "rl/rollout.h"

namespace dsengine {

// What an evaluation reads of the held-out examples: the first so many.
std::vector<const Example*> evaluated_examples(const ExampleSet& heldout, int64_t rows);

// Loss and metrics of the algorithm on the first `rows` examples, without an update: eval_<name>, eval_rows and
// eval_tokens (loss targets). The algorithm's own state is put back.
Json evaluate_records(const ExampleSet& heldout, int64_t rows, int64_t rows_at_once, AlgorithmInstance& algorithm,
                      Learner& learner);

// Answers to the first `rows` prompts, sampled and greedy, with the reward's mean and standard error, and a few of
// them in words. The draws are the same at every call: what changes between them is the model. scorer null: reward 0.
Json evaluate_rollouts(const ExampleSet& heldout, int64_t rows, const Rollout& rollout, Scorer* scorer, Phases& phases);

}  // namespace dsengine
