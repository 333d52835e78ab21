// Tries a model plugin's declaration, or a kernel, without weights from anywhere: what `dsengine plugins verify`
// adds for these kinds.
//
//   VerifyHooks hooks = model_verify_hooks(config);    // config: a config.json, or null for a general one
//   auto checks = verify(registry, "llama", hooks);
//
// A model is built tiny with random weights: its gradients are compared with central differences in float64,
// cached generation with the training forward, in batches and alone, and a saved directory with what it came
// from. A kernel is run on odd and empty shapes beside the engine's reference.
#pragma once
#include "base/json.h"
#include "plugin/verify.h"

namespace dsengine {

VerifyHooks model_verify_hooks(const Json& config);

// The keys that most config.json files share, small, under the names the families use.
Json general_config(const std::string& architecture);

}  // namespace dsengine
