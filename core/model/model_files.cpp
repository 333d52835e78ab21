#include "model/model_files.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/check.h"
#include "base/philox.h"
#include "base/printable.h"
#include "files/hf_directory.h"
#include "files/weights.h"
#include "model/model.h"
#include "model/stored_tensors.h"
#include "model/weight_checks.h"
#include "text/tokenizer_files.h"

namespace dsengine {

namespace {

constexpr std::string_view kLanguage = "ForCausalLM", kValue = kValueModel, kOldLanguage = "LMHeadModel";

// "LlamaForSequenceClassification" -> "LlamaForCausalLM", and the other way.
std::string with_ending(std::string name, std::string_view from, std::string_view to) {
  if (name.ends_with(from)) name.replace(name.size() - from.size(), from.size(), to);
  return name;
}

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

std::vector<StoredPiece> pieces_of(const std::vector<Model::NamedTensor>& tensors) {
  std::vector<StoredPiece> pieces;
  for (const auto& named : tensors) pieces.push_back({named.spec, named.tensor});
  return pieces;
}

}  // namespace

namespace {

const Item& plugin_of(const std::string& architecture, const std::string& where, const PluginRegistry& registry) try {
  return registry.find_model(architecture);
} catch (const UserError& error) {
  user_error(where + ": " + error.what());
}

}  // namespace

ModelGraph declare_architecture(const Json& config, const std::string& where, const PluginRegistry& registry) {
  const std::string given = architecture_of(config, where);
  std::string name = with_ending(given, kValue, kLanguage);
  // GPT-2's language model has an ending of its own.
  if (const auto other = with_ending(given, kValue, kOldLanguage); given != other && registry.has_model(other))
    name = other;
  ModelGraph graph = declare(plugin_of(name, where, registry).model(), config, where);
  graph.architecture = name;
  return graph;
}

void Model::init_weights(uint64_t seed, bool only_value_head) {
  at::NoGradGuard no_grad;
  const auto it = config_.find("initializer_range");
  const double range = it != config_.end() && it->is_number() ? it->get<double>()
                       : config_.contains("init_std") && config_["init_std"].is_number()
                           ? config_["init_std"].get<double>()
                           : 0.02;
  for (auto& named : tensors()) {
    const auto* spec = named.spec;
    at::Tensor& tensor = named.tensor;
    if (only_value_head && spec->tensor != "score.weight") continue;
    if (spec->init == Init::zeros) tensor.zero_();
    if (spec->init == Init::ones) tensor.fill_(1);
    if (spec->init != Init::normal) continue;
    // Keyed by name: neither the order of tensors nor their layout changes a draw.
    const Philox draws(seed, Purpose::init, name_hash(spec->tensor), uint64_t(std::max<int64_t>(0, spec->first_row)));
    at::Tensor values = Device::host().empty(tensor.sizes(), at::kFloat);
    float* out = values.mutable_data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) out[i] = float(range * draws.normal(uint64_t(i)));
    tensor.copy_(values);
  }
}

void Model::load_weights(const std::filesystem::path& directory, const ModelOptions& options) {
  at::NoGradGuard no_grad;
  const auto weights = WeightDirectory::open(directory);
  std::set<std::string> extra(weights.names().begin(), weights.names().end());
  const std::string where = directory.string();
  const StoredNames names(weights, *graph_);
  const std::string& head = names.head();
  for (const auto& stored : stored_tensors(pieces_of(tensors()))) {
    const std::string name = names.of(stored.name);
    if (names.is_tied(stored.name)) {
      DSE_CHECK_USER(name == head || same_values(weights, name, head),
                     "{}: config.json ties {} to {}, the weights have both and they differ: set tie_word_embeddings to "
                     "false, or remove one",
                     where, head, name);
    }
    extra.erase(name);
    if (weights.find(name)) {
      options.values ? stored.read(weights, name, where) : stored.check(weights, name, where);
    } else {
      DSE_CHECK(options.new_value_head && stored.name == "score.weight", "{}: {} passed check_weights", where,
                stored.name);
      if (!options.values) continue;
      stored.pieces[0].tensor.zero_();
      spdlog::info("model event=new_value_head directory={}", where);
    }
  }
  // What a checkpoint may hold beyond this model: the other kind's head, a tied head's copy, rotary tables, masks.
  std::erase_if(extra, [&](const std::string& name) {
    return name == "score.weight" || name == head || name.ends_with("rotary_emb.inv_freq") ||
           name.ends_with(".attn.bias") || name.ends_with(".attention.bias") || name.ends_with(".masked_bias");
  });
  DSE_CHECK_USER(extra.empty(), "{}: tensors that the model plugin does not declare: {}", where, shown_list(extra));
}

void Model::save(const std::filesystem::path& directory, const std::filesystem::path& tokenizer_from,
                 const SaveOptions& options) const {
  Json config = config_;
  const bool value = kind_ == ModelKind::value;
  std::string architecture = graph_->architecture;
  if (value) architecture = with_ending(with_ending(architecture, kLanguage, kValue), kOldLanguage, kValue);
  config["architectures"] = Json::array({architecture});
  config.erase("torch_dtype");
  config["dtype"] = options.dtype == Dtype::BF16 ? "bfloat16" : options.dtype == Dtype::F16 ? "float16" : "float32";
  if (value) {
    config["id2label"] = Json{{"0", "LABEL_0"}};
    config["label2id"] = Json{{"LABEL_0", 0}};
  } else {
    config.erase("id2label"), config.erase("label2id");
  }
  write_text(directory / "config.json", config.dump(2) + "\n");

  const auto all = tensors();
  const auto stored = stored_tensors(pieces_of(all));
  SavePlan plan{.max_shard_bytes = options.max_shard_bytes};
  for (const auto& tensor : stored) plan.tensors.push_back({tensor.name, options.dtype, tensor.shape()});
  WeightWriter writer(directory, plan);
  for (StoredTensor tensor : stored) {
    for (size_t i = 0; weights_->adapter && i < tensor.pieces.size(); ++i) {
      const auto& named = all[tensor.indices[i]];
      if (named.section == weights_->sections.size()) continue;  // the head
      const at::Tensor delta = weights_->adapter->delta(named.section, named.block, named.part);
      if (delta.defined()) tensor.pieces[i].tensor = tensor.pieces[i].tensor + delta;
    }
    const at::Tensor whole = tensor.joined();
    writer.write(tensor.name, {whole.const_data_ptr<float>(), size_t(whole.numel())});
  }
  writer.close();
  if (!tokenizer_from.empty()) copy_tokenizer_files(tokenizer_from, directory);
  save_generation_settings(directory_, base_, options.ends, directory);
}

}  // namespace dsengine
