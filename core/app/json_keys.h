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

inline constexpr const char* kReportKeys =
    R"(Reads metrics.jsonl and eval.jsonl of each stage's folder, whose keys 'dsengine reference --metrics' lists.)";

}  // namespace dsengine
