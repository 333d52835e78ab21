// A LoRA directory as PEFT writes it: adapter_config.json and adapter_model.safetensors, on a base that the
// configuration names.
//
//   if (is_adapter(directory)) model = Model::load(directory, …);     // base, with the adapter beside it
//   fs::path base = base_directory(directory);                        // another directory is its own base
//
// Read and written: r, lora_alpha, use_rslora, and modules_to_save = ["score"] for reward models. What would change
// the numbers and is not known here (DoRA, rank patterns, biases) is refused.
#pragma once
#include <filesystem>

namespace dsengine {

bool is_adapter(const std::filesystem::path& directory);
// base_model_name_or_path of an adapter: absolute, or relative to the adapter's folder; another directory itself.
// UserError where it is no directory.
std::filesystem::path base_directory(const std::filesystem::path& directory);

}  // namespace dsengine
