#include "model/adapter_files.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "files/weights.h"
#include "model/model.h"
#include "model/model_files.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

constexpr const char* kConfig = "adapter_config.json";
const std::string kPrefix = "base_model.model.";

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
  must("fan_in_fan_out", {Json(), false});
  must("lora_bias", {Json(), false});
  must("rank_pattern", {Json(), Json::object()});
  must("alpha_pattern", {Json(), Json::object()});
  must("layers_to_transform", {Json()});
  must("trainable_token_indices", {Json()});
  must("modules_to_save", {Json(), Json::array(), Json::array({"score"})});
  // What says nothing of the numbers, or was looked at above; another key may, unless it is empty.
  static const std::set<std::string> known{"auto_mapping",
                                           "base_model_name_or_path",
                                           "bias",
                                           "exclude_modules",
                                           "fan_in_fan_out",
                                           "inference_mode",
                                           "init_lora_weights",
                                           "layers_pattern",
                                           "lora_alpha",
                                           "lora_bias",
                                           "lora_dropout",
                                           "megatron_core",
                                           "modules_to_save",
                                           "peft_type",
                                           "peft_version",
                                           "qalora_group_size",
                                           "r",
                                           "revision",
                                           "target_modules",
                                           "task_type",
                                           "use_dora",
                                           "use_rslora"};
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

Json read_config(const fs::path& directory) {
  const Json config = read_json(directory / kConfig);
  DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", (directory / kConfig).string());
  return config;
}

void read_tensor(const WeightDirectory& weights, const std::string& name, at::Tensor to, const fs::path& directory) {
  const auto& entry = weights.at(name);
  DSE_CHECK_USER(entry.shape == to.sizes().vec(), "{}: tensor {} has shape {}, the base model and 'r' ask for {}",
                 directory.string(), name, shape_text(entry.shape), shape_text(to.sizes().vec()));
  at::Tensor values = at::empty(to.sizes(), at::kFloat);
  weights.read_f32(name, {values.mutable_data_ptr<float>(), size_t(values.numel())});
  to.copy_(values);
}

// f(name in the file, tensor) for the pairs of an adapter.
template <class F>
void for_each_pair_tensor(const Adapter& adapter, F&& f) {
  for (const auto* unit : adapter.units())
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      for (size_t p = 0; p < unit->blocks()[b].parts.size(); ++p)
        f(kPrefix + unit->blocks()[b].parts[p].tensor, unit->part(b, p));
}

}  // namespace

bool is_adapter(const fs::path& directory) { return fs::exists(directory / kConfig); }

fs::path base_directory(const fs::path& directory) {
  if (!is_adapter(directory)) return directory;
  const auto where = (directory / kConfig).string();
  const fs::path base = directory / field<std::string>(read_config(directory), "base_model_name_or_path", where);
  DSE_CHECK_USER(fs::is_directory(base), "{}: the base model {} is no directory: put its path in {}", where,
                 base.string(), "base_model_name_or_path");
  DSE_CHECK_USER(!is_adapter(base), "{}: the base model {} is an adapter itself: merge that one first (export)", where,
                 base.string());
  return base.lexically_normal();
}

Model Model::load_adapted(const fs::path& directory, const PluginRegistry& registry, const Kernels& kernels,
                          const ModelOptions& options) {
  const auto where = (directory / kConfig).string();
  const Json config = read_config(directory);
  check_plain(config, where);
  const auto weights = WeightDirectory::open(directory);
  const std::string score = kPrefix + "score.weight";
  ModelOptions base_options = options;
  if (weights.find(score)) base_options.new_value_head = true;
  Model model = load(base_directory(directory), registry, kernels, base_options);
  model.directory_ = directory;

  const AdapterSettings settings{field<int64_t>(config, "r", where),
                                 field<double>(config, "lora_alpha", where),
                                 config.value("use_rslora", Json(false)) == true,
                                 {"all"}};
  DSE_CHECK_USER(settings.rank > 0 && settings.rank <= kLargestRank, "{}: 'r' = {} is out of range", where,
                 settings.rank);
  model.adapter_ = std::make_unique<Adapter>(
      model.graph(), settings, model.dtype(), [&](const std::string&, const ParamSpec& weight) {
        return weights.find(kPrefix + module_of(weight) + ".lora_A.weight") != nullptr;
      });
  at::NoGradGuard no_grad;
  std::set<std::string> extra(weights.names().begin(), weights.names().end());
  for_each_pair_tensor(*model.adapter_, [&](const std::string& name, const at::Tensor& to) {
    read_tensor(weights, name, to, directory);
    extra.erase(name);
  });
  if (model.kind_ == ModelKind::value && weights.find(score))
    read_tensor(weights, score, model.head_->part(0, 0), directory);
  extra.erase(score);
  DSE_CHECK_USER(extra.empty(), "{}: tensors that belong to no linear of the base model: {}", directory.string(),
                 fmt::join(extra, ", "));
  return model;
}

void Model::save_adapter(const fs::path& directory, const fs::path& base, const fs::path& tokenizer_from) const {
  DSE_CHECK(adapter_, "a model without an adapter");
  const bool value = kind_ == ModelKind::value;
  SavePlan plan;
  std::vector<at::Tensor> tensors;
  std::set<std::string> modules;
  const auto add = [&](const std::string& name, const at::Tensor& t) {
    plan.tensors.push_back({name, Dtype::F32, t.sizes().vec()});
    tensors.push_back(t.to(at::kFloat).contiguous());
  };
  for_each_pair_tensor(*adapter_, [&](const std::string& name, const at::Tensor& t) {
    add(name, t);
    const std::string module = name.substr(0, name.rfind(".lora_"));
    modules.insert(module.substr(module.rfind('.') + 1));
  });
  if (value) add(kPrefix + "score.weight", head_->part(0, 0));
  SafetensorsWriter writer(directory / "adapter_model.safetensors", plan.tensors);
  for (size_t i = 0; i < tensors.size(); ++i)
    writer.write(plan.tensors[i].name,
                 {static_cast<const std::byte*>(tensors[i].const_data_ptr()), tensors[i].nbytes()});
  writer.close();
  const Json config{{"peft_type", "LORA"},
                    {"task_type", value ? "SEQ_CLS" : "CAUSAL_LM"},
                    {"base_model_name_or_path", fs::absolute(base).lexically_normal().string()},
                    {"r", adapter_->settings().rank},
                    {"lora_alpha", adapter_->settings().alpha},
                    {"use_rslora", adapter_->settings().rslora},
                    {"target_modules", modules},
                    {"modules_to_save", value ? Json::array({"score"}) : Json()},
                    {"lora_dropout", 0.0},
                    {"bias", "none"},
                    {"fan_in_fan_out", false},
                    {"inference_mode", true}};
  write_text(directory / kConfig, config.dump(2) + "\n");
  if (!tokenizer_from.empty()) copy_tokenizer_files(tokenizer_from, directory);
}

}  // namespace dsengine
