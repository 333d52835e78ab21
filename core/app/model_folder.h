// The model that a command computes with: its folder, checked and loaded.
//
//   ModelFolder folder{"models/tiny", ""};
//   dse::Model model = load_model(engine, folder, "--model", dse::HeadKind::language, "fp32");
//   // UserError: "--model: …" where the folder is none of a model
#pragma once
#include <string>

#include "engine/engine.h"

namespace dsengine {

// What --model and --base name. base: of an adapter, in place of the one that its configuration names; "": that one.
struct ModelFolder {
  std::string directory, base;
};

// UserError where a base is given for what is no adapter.
void check_base(const ModelFolder& folder);

// option: whose folder it is, for errors. dtype: fp32, or bf16 for weights rounded to bfloat16.
dse::Model load_model(const dse::Engine& engine, const ModelFolder& folder, const char* option, dse::HeadKind head,
                      const std::string& dtype);

}  // namespace dsengine
