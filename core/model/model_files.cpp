#include "model/model_files.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "base/check.h"
#include "base/directory.h"
#include "base/philox.h"
#include "base/printable.h"
#include "base/regular_file.h"
#include "files/weights.h"
#include "model/adapter_files.h"
#include "model/model.h"
#include "model/stored_tensors.h"
#include "model/weight_checks.h"
#include "text/tokenizer_files.h"

namespace dsengine {

namespace {

constexpr std::string_view kLanguage = "ForCausalLM", kValue = "ForSequenceClassification",
                           kOldLanguage = "LMHeadModel";

std::string architecture_of(const Json& config, const std::string& where) {
  const auto it = config.find("architectures");
  DSE_CHECK_USER(it != config.end() && it->is_array() && it->size() == 1 && (*it)[0].is_string(),
                 "{}: 'architectures' should be a list of one name", where);
  return (*it)[0];
}

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
    at::Tensor values = at::empty(tensor.sizes(), at::kFloat);
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
    for (size_t i = 0; adapter_ && i < tensor.pieces.size(); ++i) {
      const auto& named = all[tensor.indices[i]];
      if (named.section == sections_.size()) continue;  // the head
      const at::Tensor delta = adapter_->delta(named.section, named.block, named.part);
      if (delta.defined()) tensor.pieces[i].tensor = tensor.pieces[i].tensor + delta;
    }
    const at::Tensor whole = tensor.joined();
    writer.write(tensor.name, {whole.const_data_ptr<float>(), size_t(whole.numel())});
  }
  writer.close();
  if (!tokenizer_from.empty()) copy_tokenizer_files(tokenizer_from, directory);
  save_generation_settings(directory_, base_, options.ends, directory);
}

void check_model_directory(const std::filesystem::path& directory, const std::string& name) {
  check_directory(directory, name);
  if (std::filesystem::exists(directory / "config.json") || is_adapter(directory)) return;
  const auto within = directory / "model";
  user_error(fmt::format("{}{}{}: no config.json is in it: this is no model's directory{}", name,
                         name.empty() ? "" : " ", directory.string(),
                         std::filesystem::exists(within / "config.json") ? "; give " + within.string() : ""));
}

namespace {

constexpr const char* kGeneration = "generation_config.json";
constexpr std::array kGenerationKeys{"eos_token_id",
                                     "bos_token_id",
                                     "pad_token_id",
                                     "_from_model_config",
                                     "do_sample",
                                     "temperature",
                                     "top_k",
                                     "top_p",
                                     "min_p",
                                     "repetition_penalty",
                                     "max_length",
                                     "max_new_tokens",
                                     "transformers_version",
                                     "decoder_start_token_id"};

// Of an adapter: its own, else its base's.
std::filesystem::path generation_file(const std::filesystem::path& model, const std::filesystem::path& base) {
  const auto own = model / kGeneration;
  return file_exists(own) ? own : base_directory(model, base) / kGeneration;
}

}  // namespace

std::vector<int32_t> eos_ids(const std::filesystem::path& model, const std::filesystem::path& base) {
  return token_ids(model, "eos_token_id", base);
}

std::vector<int32_t> token_ids(const std::filesystem::path& model, const std::string& key,
                               const std::filesystem::path& base) {
  for (const auto& path : {generation_file(model, base), base_directory(model, base) / "config.json"}) {
    if (!file_exists(path)) continue;
    const Json config = read_json(path);
    DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", path.string());
    const auto it = config.find(key);
    if (it == config.end() || it->is_null()) continue;
    std::vector<int32_t> ids;
    for (const auto& id : it->is_array() ? *it : Json::array({*it})) {
      const auto number = whole_number(id, 0, INT32_MAX);
      DSE_CHECK_USER(number, "{}: {} should be an id or a list of ids, is {}", path.string(), key, it->dump());
      ids.push_back(int32_t(*number));
    }
    return ids;
  }
  return {};
}

void save_generation_settings(const std::filesystem::path& model, const std::filesystem::path& base,
                              const std::vector<int32_t>& ends, const std::filesystem::path& to) {
  if (model.empty()) return;  // made from a declaration
  const auto from = generation_file(model, base);
  Json settings = Json::object();
  if (file_exists(from)) {
    settings = read_json(from);
    DSE_CHECK_USER(settings.is_object(), "{}: expected a JSON object", from.string());
    // A link to another file is nobody's business here.
    if (!settings.empty() && std::ranges::none_of(kGenerationKeys, [&](auto key) { return settings.contains(key); })) {
      spdlog::warn("model event=file_left_out reason=\"{}: none of its keys is one of such a file\"", from.string());
      settings = Json::object();
      if (ends.empty()) return;
    }
  } else if (ends.empty()) {
    return;
  } else {  // what readers took from config.json until now
    const Json config = read_json(base_directory(model, base) / "config.json");
    for (const char* key : {"bos_token_id", "pad_token_id"})
      if (const Json id = config.value(key, Json()); !id.is_null()) settings[key] = id;
  }
  if (!ends.empty()) settings["eos_token_id"] = ends.size() == 1 ? Json(ends[0]) : Json(ends);
  write_text(to / kGeneration, settings.dump(2) + "\n");
}

ModelKind stored_kind(const std::filesystem::path& directory, const std::filesystem::path& base) {
  if (is_adapter(directory)) {
    const Json config = read_json(directory / "adapter_config.json");
    if (config.is_object() && config.value("task_type", Json()) == "SEQ_CLS") return ModelKind::value;
    return stored_kind(base_directory(directory, base));
  }
  const auto path = directory / "config.json";
  return architecture_of(read_json(path), path.string()).ends_with(kValue) ? ModelKind::value : ModelKind::language;
}

void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::vector<std::string> left_out;
  for (const auto& file : tokenizer_files(from, left_out)) {
    make_directories((to / file.name).parent_path());
    write_text(to / file.name, file.text);
  }
  for (const auto& reason : left_out) spdlog::warn("model event=file_left_out reason=\"{}\"", reason);
}

}  // namespace dsengine
