// A model with its weights: a plugin's declaration, run twice: packed sequences for training and scoring, and with a
// key-value cache for generation.
//
//   Model model = load_model("models/tiny", registry, kernels, {.kind = ModelKind::language});   // hf/load.h
//   at::Tensor h = model.hidden(batch);                             // [N, H], final-norm output
//   auto [logp, entropy] = model.log_prob(h, rows, targets, 1.0, false);
//   model.add_adapter({.rank = 8, .targets = {"q", "v"}}, seed);    // from here the base stays as it is
//
// Legend: N tokens of all sequences, B sequences, H width, V vocabulary. No padding exists: a batch is tokens
// and offsets. Not copyable. One thread at a time.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/model_kind.h"
#include "model/executor.h"
#include "model/graph.h"

namespace dsengine {

// Where a model came from; of one that was made from a declaration alone nothing is set.
struct ModelOrigin {
  std::filesystem::path directory{};
  std::filesystem::path base{};  // of an adapter's directory: its base's; else the same
  // What came with an adapter in the base's place, but for a value head: tensor -> its name in the adapter's directory.
  std::map<std::string, std::string> saved_modules{};
};

class Model {
 public:
  // Its values are whatever memory holds until they are loaded (hf/load.h) or drawn (init.h). config: what the graph
  // was declared from. streamed: of layers. Borrows the kernels.
  Model(ModelGraph graph, Json config, ModelKind kind, const Kernels& kernels, at::ScalarType dtype,
        StreamSettings streamed = {});
  // A copy of the weights under another kind: a critic from a reward model, a reward model from an actor.
  Model clone(ModelKind kind) const;

  const ModelGraph& graph() const { return *graph_; }
  const Json& config() const { return config_; }
  ModelKind kind() const { return kind_; }
  const Kernels& kernels() const { return *kernels_; }
  const ModelOrigin& origin() const { return origin_; }
  void set_origin(ModelOrigin origin) { origin_ = std::move(origin); }
  // Units in checkpoint order: sections, then the head (untied) or the value head, then an adapter's.
  std::vector<ParamStorage*> units() const { return weights_->units(); }
  int64_t parameter_count() const;          // without an adapter's
  bool finite() const;                      // all parameters are numbers
  int64_t trained_parameter_count() const;  // of what enable_training chose
  at::ScalarType dtype() const { return weights_->sections[0].dtype(); }
  const Device& device() const { return kernels_->device(); }

  // Puts low-rank pairs beside the linears; they begin as no change. The model had none.
  void add_adapter(const AdapterSettings& settings, uint64_t seed);
  // Pairs of the model's own graph, as they are.
  void add_adapter(std::unique_ptr<Adapter> adapter);
  const Adapter* adapter() const { return weights_->adapter.get(); }

  // Without an adapter every parameter is trained. With one: its pairs, a value head, and of the base the kinds
  // `beside`: norms, biases, embeddings (and the head). Nothing else of the base changes by a bit. offload: gradients
  // lie beside the device's memory. wide false: what of the base is bfloat16 is trained without float32 values beside.
  void enable_training(const std::vector<std::string>& beside = {}, bool offload = false, bool wide = true,
                       const Sharding& sharding = {});
  void zero_grad();
  // Recompute each layer in the backward pass instead of keeping its activations.
  void set_recompute(bool on) { executor_->set_recompute(on); }
  // See Executor; borrowed.
  void set_hooks(SectionHooks* hooks) { executor_->set_hooks(hooks); }
  Weights& weights() const { return *weights_; }
  // What of its streamed weights and offloaded gradients was moved since the last call.
  Traffic take_traffic() const;
  // Buffers that they are brought to are kept for the next section, until this is called.
  void let_go_buffers() const;

  // [N, H]: output of the final norm. Differentiable after enable_training, under grad mode. adapted false: as the
  // base alone gives it; UserError where it is none (AdapterSettings::init).
  at::Tensor hidden(const Batch& batch, bool adapted = true) const;
  // With another source of keys and values; never differentiable.
  at::Tensor hidden(const Batch& batch, AttentionContext& attention) const;
  // log p(targets[i]) read at hidden row rows[i].
  autograd::LogProb log_prob(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& targets,
                             double temperature, bool entropy) const;
  // Whether a rollout's log-probabilities are, bit for bit, those of a training forward on the same weights: a fact of
  // the kernels that serve it, and of weights that are read as they are.
  bool exact_rollouts() const;
  // Whether a step of generation can be recorded: nothing of its weights comes and goes, and its kernels allow it
  // (those of the host do where they read no batch on the host, as the reference does).
  bool recordable() const;
  // From here on generation reads the weights of linears so. They are packed before it begins, and after each change of
  // the weights; dropped, they take no memory. Without a packing both do nothing.
  void set_rollout_weights(Packing packing);
  void pack_rollout_weights() const;
  void drop_rollout_weights() const;
  at::Tensor logits(const at::Tensor& hidden_TH) const;  // [T, V], for sampling
  // log p of targets [T] as log_prob has it, of logits and temperatures [T] float32.
  at::Tensor log_prob_of(const at::Tensor& logits_TV, const at::Tensor& temperatures, const at::Tensor& targets) const;
  // The next tokens of logits [T, V], and their log p: draws [T] float64 in [0, 1), below 0 for the likeliest.
  std::pair<at::Tensor, at::Tensor> draw(const at::Tensor& logits_TV, const at::Tensor& temperatures,
                                         const at::Tensor& draws) const;
  // Value head at hidden rows: [T].
  at::Tensor values(const at::Tensor& hidden, const at::Tensor& rows) const;

  // Names, shapes and views of every tensor a checkpoint of this model holds. Those of streamed weights have values in
  // each_section alone.
  struct NamedTensor {
    const ParamSpec* spec;
    at::Tensor tensor, grad;      // as ParamStorage::kept_part has it; grad undefined unless trained
    size_t section, block, part;  // section: as many as there are for the head
  };
  std::vector<NamedTensor> tensors() const;
  // write: what f leaves in them is the model's.
  enum class Access { read, write };
  // f of each section's tensors in their order, the head's last; its values are there meanwhile.
  void each_section(Access access, const std::function<void(const std::vector<NamedTensor>&)>& f) const;

 private:
  Model() = default;
  // shared: null, or the streamed weights that it has from another of its kind.
  void build_weights(at::ScalarType dtype, StreamSettings settings, const StreamedWeights* shared);
  std::vector<NamedTensor> tensors_of(size_t section) const;
  // UserError where the model cannot take the batch: its positions, its vocabulary.
  void check_bounds(const Batch& batch) const;

  std::shared_ptr<const ModelGraph> graph_;
  std::shared_ptr<const BoundGraph> bound_;
  const Kernels* kernels_ = nullptr;
  Json config_;
  ModelKind kind_ = ModelKind::language;
  ModelOrigin origin_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Executor> executor_;
};

}  // namespace dsengine
