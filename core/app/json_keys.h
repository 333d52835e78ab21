// The JSON keys that each command reads and writes, for its --help. docs/files.md has the same lines, with examples of
// them (tests/app/docs_test.py compares).
#pragma once

namespace dsengine {

inline constexpr const char* kScoreKeys =
    R"(Lines of --input, the first of these that is there:
  input_ids            a list of token ids
  text                 a string, with the tokenizer's special tokens around it
  messages             [{role, content}]: a conversation in the model's chat template; beside it tools, documents,
                       chat_template_kwargs
  prompt, completion   a user's turn, or a list of turns, and the answer to it, as training reads them
Lines of --output are these objects with:
  input_ids            the ids that were scored
  logprobs             with --model: log p(token t | before), t = 1 … n - 1
  reward               with --reward: the value at the last token
  error                alone, where the line cannot be done)";

inline constexpr const char* kGenerateKeys =
    R"(Lines of --input, the first of these that is there:
  input_ids            a list of token ids
  text                 a string, with the tokenizer's special tokens around it; empty: bos_token_id
  messages             [{role, content}]: a conversation in the model's chat template; beside it tools, documents,
                       chat_template_kwargs
  prompt               a user's turn, or a list of turns
Lines of --output are these objects with (lists of --n where it is more than 1):
  output_ids           the answer's ids, the ending one included
  reply                the answer's text, without special tokens and stop string
  text                 the same, where the input has no text of its own
  logprobs             of each of output_ids: log-softmax(logits / temperature)
  finish_reason        eos, length or stop
  error                alone, where the line cannot be done)";

inline constexpr const char* kTokenizeKeys =
    R"(Lines of --input, the first of these that is there:
  messages             [{role, content}], up to the opening of an answer; beside it tools, documents,
                       chat_template_kwargs
  text                 a string, with the tokenizer's special tokens around it
  input_ids            a list of token ids
Lines of --output are these objects with:
  input_ids            of text and messages
  text                 of input_ids and messages, nothing skipped
  error                alone, where the line cannot be done)";

inline constexpr const char* kEvalKeys =
    R"(Records of --data are those of training (docs/data.md). The object in --output has:
  data, records, rows  the file, how many it holds, how many were read
  model, other         the directories
  loss                 [{mean, perplexity, tokens}] of each model; loss_difference {mean, standard_error, count}
  accuracy, margin     {mean, standard_error, count} of --reward-model on pairs
  reward               [{mean, standard_error, count}] of each model's answers; reward_difference the same
  better, equal, worse prompts where other's answer has more, as much, less reward
  samples              [{prompt, replies, rewards}], an entry of each model)";

inline constexpr const char* kRunKeys =
    R"(Records of data.sources, a JSON object a line (docs/data.md):
  text | messages | prompt, completion | prompt, chosen, rejected | prompt, ranked | prompt; and weight
Each stage writes metrics.jsonl and eval.jsonl, whose keys 'dsengine reference --metrics' lists.)";

inline constexpr const char* kPlanKeys =
    R"(Goes through one step of each stage without its numbers: the step that reads most, its answers as long as they may
become. Ends with status 1 where a stage does not fit. With --json a line for each stage:
  stage, algorithm, steps, and batch: prompts, records or pairs a step
  fits                 whether peak_gib is at most memory_limit_gib, which is memory_limit or the machine's memory
  peak_gib, peak_phase, memory_limit_gib
  ranks                --world: what is told is of the first of so many
  dtype                what the models compute in: fp32 or bf16
  device               cpu: this machine; else the card, also where --gpu auto found it, with device_gib, and of these
                       libraries_gib and fragmentation_gib, which no tensor has; note
  state_gib            what is held between phases: weights, gradients, moments, averages
  offloaded_gib        beside these, what offload puts into the host's memory; on a cpu peak_gib has it too
  phases               by phase, and "evaluation", its answers: peak_gib, gib by tag at that moment, seconds
  seconds_per_step, hours, cost: from the machine's rates of reading and multiplying, measured first; cost with --price
  savings              settings that need less, each alone: settings, peak_gib, seconds_per_step
  largest              the largest micro_batch_size that fits, likewise; left out where none does
  fits_with            where it does not fit: the cheapest settings that do, likewise; null: none that was tried)";

inline constexpr const char* kBenchKeys =
    R"(Prints one JSON object on a line, after a run that warms up and --repeats that count. All have:
  command, dtype, device, threads, peak_memory_mb
  read_gb_per_s        what all threads read of memory at most, in 1e9 bytes a second
  product_gflops       what a product of matrices reaches at most, in 1e9 operations a second
All but ops have:
  model, batch         the folder's name, sequences
  spread               {min, median, max, n} of what varies; elsewhere stands the median
  other_cores          processors that others kept busy, in each repeat
  floor_share          how much of the time the machine's rates leave as the least: for reading the weights of a
                       decode step (generate), for products: 2 operations a weight and token forward, 6 trained
generate:
  prompt, new, lengths, samples, slots, padded_waves, weights, temperature
  new_tokens           of all answers
  tokens_per_s         new_tokens / (prefill_s + decode_s)
  prefill_s, decode_s  up to the first tokens, and from there on; prefill_tokens_per_s, decode_tokens_per_s
  decode_steps, step_s how many decode steps, and of one
  output_ids           the first answer
train, ppo, grpo:
  length, lengths, tokens            (train)
  group, prompt, new, epochs         (ppo, grpo)
  temperature, weights, kl_coef      (ppo, grpo)
  micro_batch          sequences a forward
  step_s, samples_per_s, tokens_per_s (train)
  generate_s, rest_s, generate_share, decode_tokens_per_s (ppo, grpo)
  phases_s             {generate, score, actor, critic, other}
  gflop_per_step       of products, at least; gflops and parameters too (train)
  loss_first, loss_last
  prompt_loss          mean of -log p of the prompts' tokens but the first, before any step (ppo, grpo)
  output_ids           the first answer of the first step (ppo, grpo)
  memory_peak_mb       of what the engine holds; memory_mb: {weights, activations, ...}, the most of each
ops:
  shapes               [{rows, in, out, forward, backward, weight_backward}], each {seconds, gflops, gb_per_s, spread},
                       gb_per_s of weights)";

inline constexpr const char* kReportKeys =
    R"(Reads metrics.jsonl and eval.jsonl of each stage's folder, whose keys 'dsengine reference --metrics' lists.)";

}  // namespace dsengine
