// A LoRA directory as PEFT writes it: adapter_config.json and adapter_model.safetensors, on a base that the
// configuration names.
//
//   const AdapterFolder folder("adapters/x");           // its settings are looked at
//   folder.load(base);                                  // the pairs beside the linears of `base`, a Model
//   save_adapter(base, "adapters/y", "models/base", "models/base");
//
// Read and written: r, lora_alpha, rank_pattern, alpha_pattern, use_rslora, init_lora_weights, and modules_to_save: the
// score of reward models; an untied head or embedding, norms. What would change the numbers and is not known here
// (DoRA, biases) is refused. Which modules have a pair is read from the weights. Errors are UserErrors that name the
// file, the key or the tensor.
#pragma once
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "files/weights.h"
#include "model/model.h"

namespace dsengine {

class AdapterFolder {
 public:
  explicit AdapterFolder(const std::filesystem::path& directory);

  bool has_value_head() const;
  // Beside the linears of its base, which has no adapter yet. What the folder has in the base's place is put there.
  // From here on the folder is the model's origin.
  void load(Model& base) const;

 private:
  // Those of the folder's tensors that stand in the base's place (PEFT's modules_to_save), taken from `extra`; for
  // ModelOrigin.
  std::map<std::string, std::string> load_saved_modules(const Model& model, std::set<std::string>& extra) const;

  std::filesystem::path directory_;
  std::string where_;  // of its configuration
  Json config_;
  std::string init_;  // AdapterSettings::init
  WeightDirectory weights_;
};

// The adapter and what its folder had in the base's place (and a value head), into a folder that exists. base: what the
// configuration names; tokenizer_from and ends: as in hf/save.h.
void save_adapter(const Model& model, const std::filesystem::path& directory, const std::filesystem::path& base,
                  const std::filesystem::path& tokenizer_from, const std::vector<int32_t>& ends = {});

}  // namespace dsengine
