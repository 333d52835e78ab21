// A LoRA directory as PEFT writes it: adapter_config.json and adapter_model.safetensors, on a base that the
// configuration names.
//
//   if (is_adapter(directory)) model = Model::load(directory, …);     // base, with the adapter beside it
//   fs::path base = base_directory(directory);                        // another directory is its own base
//
// Read and written: r, lora_alpha, rank_pattern, alpha_pattern, use_rslora, init_lora_weights, and modules_to_save: the
// score of reward models; an untied head or embedding, norms. What would change the numbers and is not known here
// (DoRA, biases) is refused. Which modules have a pair is read from the weights.
#pragma once
#include <filesystem>

namespace dsengine {

bool is_adapter(const std::filesystem::path& directory);
// The base of an adapter; another directory is its own. `given` where it is not empty, else base_model_name_or_path:
// absolute, or relative to the working directory, as PEFT finds it, or to the adapter's folder. UserError where no
// model lies there.
std::filesystem::path base_directory(const std::filesystem::path& directory, const std::filesystem::path& given = {});

}  // namespace dsengine
