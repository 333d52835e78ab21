// The commands of the program that compute with a model. Each returns the exit status.
#pragma once
#include <string>
#include <vector>

#include "engine/engine.h"

namespace dsengine {

struct LineFiles {
  std::string input = "-", output = "-";
};

// What --model and --base name. base: of an adapter, in place of the one that its configuration names; "": that one.
struct ModelFolder {
  std::string directory, base;
};
// UserError where a base is given for what is no adapter.
void check_base(const ModelFolder& model);

// What these three read and write: app/json_keys.h.

// Log-probabilities under `model`, or rewards by `reward`: one of the two directories is given.
int score_command(const dse::Engine& engine, const ModelFolder& model, const std::string& reward,
                  const LineFiles& files, const std::string& dtype);

// Answers to prompts.
int generate_command(const dse::Engine& engine, const ModelFolder& model, const LineFiles& files,
                     const std::string& dtype, const dse::Sampling& sampling);

// Text to ids and back.
int tokenize_command(const ModelFolder& model, const LineFiles& files);

// A conversation on the terminal or through a pipe: /clear, /set temperature T, /quit.
int chat_command(const dse::Engine& engine, const ModelFolder& model, const dse::Sampling& sampling);

struct ExportOptions {
  ModelFolder model;
  std::string output, weights = "final", dtype = "fp32", shard_size = "5GB";
};

// A model, an adapter with its base, or a finished stage's folder, as a Hugging Face folder.
int export_command(const dse::Engine& engine, const ExportOptions& options);

}  // namespace dsengine
