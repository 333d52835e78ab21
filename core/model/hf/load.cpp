#include "model/hf/load.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/check.h"
#include "base/printable.h"
#include "files/hf_directory.h"
#include "files/weights.h"
#include "model/hf/adapter_files.h"
#include "model/hf/architecture.h"
#include "model/hf/stored_tensors.h"
#include "model/hf/weight_checks.h"
#include "model/init.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

// Whether two tensors of a directory are the same numbers.
bool same_values(const WeightDirectory& weights, const std::string& a, const std::string& b) {
  const auto& shape = weights.at(a).shape;
  if (weights.at(b).shape != shape || shape.size() != 2) return false;
  const int64_t most = std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(1, shape[1]));
  std::vector<float> left, right;
  for (int64_t first = 0; first < shape[0]; first += most) {
    const int64_t rows = std::min(most, shape[0] - first);
    left.resize(size_t(rows * shape[1])), right.resize(left.size());
    weights.read_f32(a, first, rows, left);
    weights.read_f32(b, first, rows, right);
    if (std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

// Without values yet.
Model declared(Json config, const std::string& where, const PluginRegistry& registry, const Kernels& kernels,
               const ModelOptions& options) {
  DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", where);
  ModelGraph graph = declare_architecture(config, where, registry);
  if (kernels.device().has_values()) check_memory(graph, options.dtype, options.streamed, kernels.device(), where);
  if (options.new_value_head) {
    // Scores are learned at the last token, the end token; where that is the padding too, readers would skip it.
    const auto eos = config.value("eos_token_id", Json()), pad = config.value("pad_token_id", Json());
    if (!pad.is_null() && (eos == pad || (eos.is_array() && std::count(eos.begin(), eos.end(), pad) > 0)))
      config["pad_token_id"] = nullptr;
  }
  return {std::move(graph), std::move(config), options.kind, kernels, options.dtype, options.streamed};
}

// The deviation that new weights are drawn with.
double initializer_range(const Json& config) {
  for (const char* key : {"initializer_range", "init_std"})
    if (const Json range = config.value(key, Json()); range.is_number()) return range.get<double>();
  return 0.02;
}

Model load_adapted(const fs::path& directory, const PluginRegistry& registry, const Kernels& kernels,
                   const ModelOptions& options) {
  const AdapterFolder adapter(directory);
  ModelOptions base_options = options;
  if (adapter.has_value_head()) base_options.new_value_head = true;
  if (options.base.empty()) warn_of_two_bases(directory);
  Model model = load_model(base_directory(directory, options.base), registry, kernels, base_options);
  adapter.load(model);
  return model;
}

}  // namespace

Model create_model(const Json& config, const std::string& where, const PluginRegistry& registry, const Kernels& kernels,
                   const ModelOptions& options) {
  Model model = declared(config, where, registry, kernels, options);
  draw_weights(model, initializer_range(config), options.seed);
  return model;
}

Model load_model(const fs::path& directory, const PluginRegistry& registry, const Kernels& kernels,
                 const ModelOptions& options) {
  check_model_directory(directory);
  DSE_CHECK_USER(options.random_init || options.kind != ModelKind::language ||
                     stored_kind(directory, options.base) == ModelKind::language,
                 "{}: a reward model or critic (…ForSequenceClassification), no language model: its rewards are what "
                 "'dsengine score --reward' gives",
                 directory.string());
  if (is_adapter(directory)) return load_adapted(directory, registry, kernels, options);
  const Json config = read_json(directory / "config.json");
  const std::string where = (directory / "config.json").string();
  if (!options.random_init)
    check_weights(declare_architecture(config, where, registry), options.kind, WeightDirectory::open(directory),
                  options.new_value_head, directory.string());
  Model model = declared(config, where, registry, kernels, options);
  model.set_origin({.directory = directory, .base = directory});
  if (!options.random_init)
    load_weights(model, directory, options);
  else if (kernels.device().has_values())
    draw_weights(model, initializer_range(config), options.seed, options.quick_draws);
  return model;
}

void load_weights(Model& model, const fs::path& directory, const ModelOptions& options) {
  at::NoGradGuard no_grad;
  const auto weights = WeightDirectory::open(directory);
  std::set<std::string> extra(weights.names().begin(), weights.names().end());
  const std::string where = directory.string();
  const StoredNames names(weights, model.graph());
  const std::string& head = names.head();
  const auto load = [&](const StoredTensor& stored) {
    const std::string name = names.of(stored.name);
    if (names.is_tied(stored.name)) {
      DSE_CHECK_USER(name == head || same_values(weights, name, head),
                     "{}: config.json ties {} to {}, the weights have both and they differ: set tie_word_embeddings to "
                     "false, or remove one",
                     where, head, name);
    }
    extra.erase(name);
    if (weights.find(name)) {
      stored.read(weights, name, where);
    } else {
      DSE_CHECK(options.new_value_head && stored.name == "score.weight", "{}: {} passed check_weights", where,
                stored.name);
      stored.pieces[0].tensor.zero_();
      spdlog::info("model event=new_value_head directory={}", where);
    }
  };
  model.each_section(Model::Access::write,
                     [&](const auto& tensors) { std::ranges::for_each(stored_tensors(pieces_of(tensors)), load); });
  // What a checkpoint may hold beyond this model: the other kind's head, a tied head's copy, rotary tables, masks.
  std::erase_if(extra, [&](const std::string& name) {
    return name == "score.weight" || name == head || name.ends_with("rotary_emb.inv_freq") ||
           name.ends_with(".attn.bias") || name.ends_with(".attention.bias") || name.ends_with(".masked_bias");
  });
  DSE_CHECK_USER(extra.empty(), "{}: tensors that the model plugin does not declare: {}", where, shown_list(extra));
}

}  // namespace dsengine
