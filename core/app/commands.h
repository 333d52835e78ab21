// The commands of the program that read JSON lines, and chat. Each returns the exit status.
#pragma once
#include <string>
#include <vector>

#include "app/session.h"
#include "model/sampler.h"

namespace dsengine {

struct LineFiles {
  std::string input = "-", output = "-";
};

// input_ids | text -> input_ids, logprobs (length n - 1: log p(token t | before), t = 1 … n - 1). With
// `reward`: reward, the value at the last token.
int score_command(const Session& session, const std::string& model, const std::string& reward, const LineFiles& files,
                  const std::string& dtype);

struct GenerateOptions {
  int64_t max_new_tokens = 128, samples = 1;
  uint64_t seed = 1234;
  SamplingOptions sampling;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  int64_t slots = 32;
};

// input_ids | text | prompt | messages -> output_ids, text, logprobs, finish_reason.
int generate_command(const Session& session, const std::string& model, const LineFiles& files, const std::string& dtype,
                     const GenerateOptions& options);

// text -> input_ids; input_ids -> text; messages -> both.
int tokenize_command(const std::string& model, const LineFiles& files);

// A conversation on the terminal or through a pipe: /clear, /set temperature T, /quit.
int chat_command(const Session& session, const std::string& model, const GenerateOptions& options);

}  // namespace dsengine
