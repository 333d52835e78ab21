// A model with its weights: built from a Hugging Face directory and a plugin's declaration, run twice:
// packed sequences for training and scoring, and with a key-value cache for generation.
//
//   Model model = Model::load("models/tiny", registry, kernels, {.kind = ModelKind::language});
//   at::Tensor h = model.hidden(batch);                             // [N, H], final-norm output
//   auto [logp, entropy] = model.log_prob(h, rows, targets, 1.0, false);
//   model.save("out/model");
//   model.add_adapter({.rank = 8, .targets = {"q", "v"}}, seed);    // from here the base stays as it is
//
// Legend: N tokens of all sequences, B sequences, H width, V vocabulary. No padding exists: a batch is tokens
// and offsets. Not copyable. One thread at a time.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>

#include "base/json.h"
#include "files/hf_directory.h"
#include "files/tensor_entry.h"
#include "files/weights.h"
#include "model/executor.h"
#include "model/graph.h"

namespace dsengine {

struct ModelOptions {
  ModelKind kind = ModelKind::language;
  bool random_init = false;     // read config.json alone and draw the weights from the seed
  bool new_value_head = false;  // value models: a missing score.weight is begun at zero, to be trained
  uint64_t seed = 0;
  at::ScalarType dtype = at::kFloat;
  // false: names and shapes are compared with the files, no value is read and no memory filled.
  bool values = true;
  std::filesystem::path base{};  // of an adapter, in place of the one that its configuration names
};

struct SaveOptions {
  Dtype dtype = Dtype::F32;
  uint64_t max_shard_bytes = 5'000'000'000;
  std::vector<int32_t> ends{};  // the tokens that end an answer; none: those that the model came with
};

class Model {
 public:
  static Model load(const std::filesystem::path& directory, const PluginRegistry& registry, const Kernels& kernels,
                    const ModelOptions& options);
  // From a declaration alone, weights drawn from the seed (Init::normal has the config's initializer_range).
  static Model create(const Json& config, const std::string& where, const PluginRegistry& registry,
                      const Kernels& kernels, const ModelOptions& options);
  // A copy of the weights under another kind: a critic from a reward model, a reward model from an actor.
  Model clone(ModelKind kind) const;

  const ModelGraph& graph() const { return *graph_; }
  const Json& config() const { return config_; }
  ModelKind kind() const { return kind_; }
  const Kernels& kernels() const { return *kernels_; }
  const std::filesystem::path& directory() const { return directory_; }
  // Of an adapter's folder: that of its base; else the same.
  const std::filesystem::path& base() const { return base_.empty() ? directory_ : base_; }
  // Units in checkpoint order: sections, then the head (untied) or the value head, then an adapter's.
  std::vector<ParamStorage*> units() const { return weights_->units(); }
  int64_t parameter_count() const;          // without an adapter's
  bool finite() const;                      // all parameters are numbers
  int64_t trained_parameter_count() const;  // of what enable_training chose
  at::ScalarType dtype() const { return weights_->sections[0].flat().scalar_type(); }
  const Device& device() const { return kernels_->device(); }

  // Puts low-rank pairs beside the linears; they begin as no change. The model had none.
  void add_adapter(const AdapterSettings& settings, uint64_t seed);
  const Adapter* adapter() const { return weights_->adapter.get(); }

  // Without an adapter every parameter is trained. With one: its pairs, a value head, and of the base the kinds
  // `beside`: norms, biases, embeddings (and the head). Nothing else of the base changes by a bit.
  void enable_training(const std::vector<std::string>& beside = {});
  void zero_grad();
  // Recompute each layer in the backward pass instead of keeping its activations.
  void set_recompute(bool on) { executor_->set_recompute(on); }
  // See Executor; borrowed.
  void set_hooks(SectionHooks* hooks) { executor_->set_hooks(hooks); }
  Weights& weights() const { return *weights_; }

  // [N, H]: output of the final norm. Differentiable after enable_training, under grad mode. adapted false: as the
  // base alone gives it; UserError where it is none (AdapterSettings::init).
  at::Tensor hidden(const Batch& batch, bool adapted = true) const;
  // With another source of keys and values; never differentiable.
  at::Tensor hidden(const Batch& batch, AttentionContext& attention) const;
  // log p(targets[i]) read at hidden row rows[i].
  autograd::LogProb log_prob(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& targets,
                             double temperature, bool entropy) const;
  at::Tensor logits(const at::Tensor& hidden_TH) const;  // [T, V], for sampling
  // Value head at hidden rows: [T].
  at::Tensor values(const at::Tensor& hidden, const at::Tensor& rows) const;

  // Names, shapes and views of every tensor a checkpoint of this model holds.
  struct NamedTensor {
    const ParamSpec* spec;
    at::Tensor tensor, grad;      // grad undefined unless trained
    size_t section, block, part;  // section: as many as there are for the head
  };
  std::vector<NamedTensor> tensors() const;
  // A Hugging Face directory: config.json, weights with an adapter merged in, the model's generation_config.json, and
  // the tokenizer's files from `tokenizer_from`.
  void save(const std::filesystem::path& directory, const std::filesystem::path& tokenizer_from,
            const SaveOptions& options = {}) const;
  // The adapter (and a value head) alone, as PEFT stores it: adapter_config.json and adapter_model.safetensors.
  void save_adapter(const std::filesystem::path& directory, const std::filesystem::path& base,
                    const std::filesystem::path& tokenizer_from, const std::vector<int32_t>& ends = {}) const;

 private:
  Model() = default;
  void build_weights(at::ScalarType dtype);
  static Model declared(const Json& config, const std::string& where, const PluginRegistry& registry,
                        const Kernels& kernels, const ModelOptions& options);
  static Model load_adapted(const std::filesystem::path& directory, const PluginRegistry& registry,
                            const Kernels& kernels, const ModelOptions& options);
  void load_weights(const std::filesystem::path& directory, const ModelOptions& options);
  void init_weights(uint64_t seed, bool only_value_head);
  void take_out_initial_pairs(const std::string& init);
  // Those of an adapter folder's tensors that stand in the base's place (PEFT's modules_to_save); takes them from
  // `extra`.
  void read_saved_modules(const WeightDirectory& weights, const Json& modules, std::set<std::string>& extra);
  // UserError where the model cannot take the batch: its positions, its vocabulary.
  void check_bounds(const Batch& batch) const;

  std::shared_ptr<const ModelGraph> graph_;
  std::shared_ptr<const BoundGraph> bound_;
  const Kernels* kernels_ = nullptr;
  Json config_;
  std::filesystem::path directory_, base_;
  ModelKind kind_ = ModelKind::language;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Executor> executor_;
  // What came with the adapter in the base's place, but for a value head: tensor -> its name in the adapter's folder.
  std::map<std::string, std::string> saved_modules_;
};

}  // namespace dsengine
