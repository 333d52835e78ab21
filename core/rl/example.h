// What a stage makes of one record: tokens to imitate, to compare or to answer.
//
//   Example e = encoder.encode(data, record);         // rl/example_encoder.h
//   e.prompt.size() + e.answer.tokens.size();
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "text/text_model.h"

namespace dsengine {

struct Example {
  std::vector<TokenId> prompt;
  AnswerTokens answer, rejected;  // rejected: pairs only
  double weight = 1;
  std::string prompt_text;               // as the model sees it, without special tokens
  std::string metadata;                  // JSON object or empty
  std::vector<ChatMessage> turns;        // of the prompt; of rollouts only
  std::vector<TokenId> critic_prompt{};  // what a critic with words of its own is asked; empty: the prompt
  bool is_text = false;                  // without a prompt: its end is the model's
  uint64_t content_hash = 0;             // of the first turn that is no system's, or of a plain text
};

}  // namespace dsengine
