#include "model/hf/adapter_files.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/printable.h"
#include "base/regular_file.h"
#include "files/hf_directory.h"
#include "model/hf/initial_pairs.h"
#include "model/hf/stored_tensors.h"
#include "text/regex.h"
#include "text/tokenizer_files.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

const std::string kPrefix = "base_model.model.", kScore = "score.weight";

// Settings that leave the numbers as they are, and the values of others that do.
void check_plain(const Json& config, const std::string& where) {
  const auto must = [&](const char* key, std::initializer_list<Json> values) {
    const Json value = config.value(key, Json());
    DSE_CHECK_USER(std::count(values.begin(), values.end(), value) > 0, "{}: '{}' = {} is not supported", where, key,
                   value.dump());
  };
  must("peft_type", {"LORA"});
  must("bias", {Json(), "none"});
  must("use_dora", {Json(), false});
  must("lora_bias", {Json(), false});
  must("trainable_token_indices", {Json()});
  // What says nothing of the numbers, or was looked at above; another key may, unless it is empty.
  static const std::set<std::string> known{
      "alpha_pattern",     "auto_mapping",    "base_model_name_or_path", "bias",
      "eva_config",        "exclude_modules", "fan_in_fan_out",          "inference_mode",
      "init_lora_weights", "layers_pattern",  "layers_to_transform",     "lora_alpha",
      "lora_bias",         "lora_dropout",    "megatron_core",           "modules_to_save",
      "peft_type",         "peft_version",    "qalora_group_size",       "r",
      "rank_pattern",      "revision",        "target_modules",          "task_type",
      "use_dora",          "use_rslora"};
  for (const auto& [key, value] : config.items())
    DSE_CHECK_USER(known.contains(key) || value.is_null() || value == Json(false) || value.empty(),
                   "{}: '{}' = {} is not supported", where, key, value.dump());
}

template <class T>
T field(const Json& config, const char* key, const std::string& where) {
  try {
    return config.at(key).get<T>();
  } catch (const Json::exception&) {
    throw UserError(fmt::format("{}: '{}' is missing or of another type", where, key));
  }
}

// The ways of drawing an adapter's first pairs that leave the base as it is; then those that PEFT repeats when it loads
// the adapter, taking the pairs that it draws out of the base (AdapterSettings::init); others changed the base to what
// an adapter's folder does not tell.
std::string init_of(const Json& config, const std::string& where) {
  const Json init = config.value("init_lora_weights", Json());
  if (init.is_null() || init.is_boolean()) return "";
  const std::string name = init.is_string() ? init.get<std::string>() : init.dump();
  for (const char* plain : {"gaussian", "eva", "orthogonal", "mica"})
    if (name == plain) return "";
  if (name == "pissa" || name == "olora") return name;
  user_error(
      error_line("{}: init_lora_weights = '{}' changed the base model when the adapter was made, in a way that cannot "
                 "be repeated: "
                 "with PEFT, merge it, or save it as a plain adapter (path_initial_model_for_weight_conversion)",
                 where, name));
}

// rank_pattern, alpha_pattern: the value of the first pattern that ends a module's name, as PEFT matches them.
class Pattern {
 public:
  Pattern(const Json& config, const char* key, const std::string& where) {
    const Json table = config.value(key, Json());
    DSE_CHECK_USER(table.is_null() || table.is_object(), "{}: '{}' should be a table", where, key);
    for (const auto& [pattern, value] : table.items()) {
      DSE_CHECK_USER(value.is_number(), "{}: {} '{}' = {} is no number", where, key, pattern, value.dump());
      entries_.emplace_back(Regex(fmt::format("^(.*\\.)?({})$", pattern), where), value);
    }
  }
  Json value_or(const std::string& module, const Json& otherwise) const {
    for (const auto& [regex, value] : entries_)
      if (regex.matches(module)) return value;
    return otherwise;
  }

 private:
  std::vector<std::pair<Regex, Json>> entries_;
};

Adapter::Choice pairs_of(const Json& config, const WeightDirectory& weights, const std::string& where) {
  const Pattern ranks(config, "rank_pattern", where), alphas(config, "alpha_pattern", where);
  const Json rank = field<Json>(config, "r", where), alpha = field<double>(config, "lora_alpha", where);
  return [=, &weights](const ParamSpec& weight) -> std::optional<LowRank> {
    const std::string module = module_of(weight);
    if (!weights.find(kPrefix + module + ".lora_A.weight")) return std::nullopt;
    const Json given = ranks.value_or(module, rank);
    const auto whole = whole_number(given, 1, kLargestRank);
    DSE_CHECK_USER(whole, "{}: the rank of {}, {}, is not a whole number in 1..{}", where, module, given.dump(),
                   kLargestRank);
    return LowRank{*whole, alphas.value_or(module, alpha).get<double>()};
  };
}

// The tensors of an adapter's pairs, as its file has them.
std::vector<StoredTensor> stored_pairs(const Adapter& adapter) {
  std::vector<StoredPiece> pieces;
  for (const auto* unit : adapter.units())
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      for (size_t p = 0; p < unit->blocks()[b].parts.size(); ++p)
        pieces.push_back({&unit->blocks()[b].parts[p], unit->kept_part(b, p)});
  return stored_tensors(pieces);
}

std::string last_name(const std::string& module) { return module.substr(module.rfind('.') + 1); }

// The modules with a pair by their last names; by their whole names where another of that last name has none.
std::set<std::string> target_modules(const Adapter& adapter) {
  std::set<std::string> names, shared;
  for (const auto& other : adapter.other_modules()) shared.insert(last_name(other));
  for (const auto& [module, pair] : adapter.modules())
    names.insert(shared.contains(last_name(module)) ? module : last_name(module));
  return names;
}

}  // namespace

AdapterFolder::AdapterFolder(const fs::path& directory)
    : directory_(directory), where_((directory / kAdapterConfig).string()), config_(read_adapter_config(directory)) {
  check_plain(config_, where_);
  init_ = init_of(config_, where_);
  weights_ = WeightDirectory::open(directory);
}

bool AdapterFolder::has_value_head() const { return weights_.find(kPrefix + kScore); }

void AdapterFolder::load(Model& model) const {
  const AdapterSettings settings{1, 1, config_.value("use_rslora", Json(false)) == true, {"all"}, init_};
  model.add_adapter(std::make_unique<Adapter>(model.graph(), settings, model.kernels(), model.dtype(),
                                              pairs_of(config_, weights_, where_)));
  if (!init_.empty() && model.device().has_values()) take_out_initial_pairs(model, directory_.string());
  at::NoGradGuard no_grad;
  std::set<std::string> extra(weights_.names().begin(), weights_.names().end());
  for (const auto& stored : stored_pairs(*model.adapter())) {
    stored.read(weights_, kPrefix + stored.name, directory_.string());
    extra.erase(kPrefix + stored.name);
  }
  for (auto* unit : model.weights().adapter->units()) unit->settle();
  model.set_origin({directory_, model.origin().directory, load_saved_modules(model, extra)});
  if (model.kind() == ModelKind::language) extra.erase(kPrefix + kScore);
  DSE_CHECK_USER(extra.empty(), "{}: tensors that belong to no linear of the base model: {}", directory_.string(),
                 shown_list(extra));
}

std::map<std::string, std::string> AdapterFolder::load_saved_modules(const Model& model,
                                                                     std::set<std::string>& extra) const {
  const Json modules = config_.value("modules_to_save", Json());
  const auto is_saved = [&](const std::string& module) {
    return std::any_of(modules.begin(), modules.end(), [&](const Json& saved) {
      if (!saved.is_string()) return false;
      const auto& name = saved.get_ref<const std::string&>();
      return module == name || module.ends_with(fmt::format(".{}", name));
    });
  };
  const ModelGraph& graph = model.graph();
  const std::string tied = graph.head_tied ? graph.sections[0].blocks[size_t(graph.tied_block)].parts[0].tensor : "";
  std::map<std::string, std::string> saved_modules;
  const auto load = [&](const Model::NamedTensor& named) {
    std::string name = named.spec->tensor;
    // A head is lm_head to transformers, whatever a family's checkpoints call it.
    if (!extra.contains(kPrefix + name) && named.spec->tensor == graph.head.tensor) name = "lm_head.weight";
    if (!extra.contains(kPrefix + name) || !is_saved(name.substr(0, name.rfind('.')))) return;
    DSE_CHECK_USER(named.spec->tensor != tied && named.spec->first_row < 0,
                   "{}: modules_to_save: {} is tied to another tensor or a part of one", directory_.string(), name);
    stored_tensors({{named.spec, named.tensor}})[0].read(weights_, kPrefix + name, directory_.string());
    extra.erase(kPrefix + name);
    if (name != kScore) saved_modules[named.spec->tensor] = name;
  };
  if (!modules.empty())
    model.each_section(Model::Access::write, [&](const auto& tensors) { std::ranges::for_each(tensors, load); });
  return saved_modules;
}

void save_adapter(const Model& model, const fs::path& directory, const fs::path& base, const fs::path& tokenizer_from,
                  const std::vector<int32_t>& ends) {
  DSE_CHECK(model.adapter(), "a model without an adapter");
  const Adapter& adapter = *model.adapter();
  const bool value = model.kind() == ModelKind::value;
  auto stored = stored_pairs(adapter);
  std::set<std::string> saved;
  auto beside = model.origin().saved_modules;
  if (value) beside[kScore] = kScore;
  const auto all = model.tensors();
  const auto take = [&](const std::vector<Model::NamedTensor>& tensors) {
    for (const auto& named : tensors) {
      const auto found = beside.find(named.spec->tensor);
      if (found == beside.end()) continue;
      // Perhaps of streamed weights, which are there for as long as this is called.
      stored.push_back({found->second, {{named.spec, named.tensor.clone()}}, {}});
      saved.insert(found->second.substr(0, found->second.rfind('.')));
    }
  };
  if (!beside.empty()) model.each_section(Model::Access::read, take);
  SavePlan plan;
  for (const auto& tensor : stored) plan.tensors.push_back({kPrefix + tensor.name, Dtype::F32, tensor.shape()});
  SafetensorsWriter writer(directory / "adapter_model.safetensors", plan.tensors);
  for (size_t i = 0; i < stored.size(); ++i) {
    const at::Tensor whole = on_host(stored[i].joined());
    writer.write(plan.tensors[i].name, {static_cast<const std::byte*>(whole.const_data_ptr()), whole.nbytes()});
  }
  writer.close();
  // r and lora_alpha are the first pair's; patterns name those of another.
  const auto& pairs = adapter.modules();
  Json ranks = Json::object(), alphas = Json::object();
  for (const auto& [module, low] : pairs) {
    if (low.rank != pairs[0].second.rank) ranks[module] = low.rank;
    if (low.alpha != pairs[0].second.alpha) alphas[module] = low.alpha;
  }
  const std::string& init = adapter.settings().init;
  const bool transposed = std::any_of(all.begin(), all.end(), [](const auto& t) { return t.spec->transposed; });
  const Json config{{"peft_type", "LORA"},
                    {"task_type", value ? "SEQ_CLS" : "CAUSAL_LM"},
                    {"base_model_name_or_path", fs::absolute(base).lexically_normal().string()},
                    {"r", pairs[0].second.rank},
                    {"lora_alpha", pairs[0].second.alpha},
                    {"rank_pattern", ranks},
                    {"alpha_pattern", alphas},
                    {"use_rslora", adapter.settings().rslora},
                    {"init_lora_weights", init.empty() ? Json(true) : Json(init)},
                    {"target_modules", target_modules(adapter)},
                    {"modules_to_save", saved.empty() ? Json() : Json(saved)},
                    {"lora_dropout", 0.0},
                    {"bias", "none"},
                    {"fan_in_fan_out", transposed},
                    {"inference_mode", true}};
  write_text(directory / kAdapterConfig, config.dump(2) + "\n");
  if (!tokenizer_from.empty()) copy_tokenizer_files(tokenizer_from, directory);
  save_generation_settings(model.origin().directory, model.origin().base, ends, directory);
}

}  // namespace dsengine
