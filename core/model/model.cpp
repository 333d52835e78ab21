#include "model/model.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "base/check.h"
#include "files/hf_directory.h"
#include "model/model_files.h"
#include "model/weight_checks.h"

namespace dsengine {

using at::Tensor;

namespace {

class RaggedContext : public AttentionContext {
 public:
  explicit RaggedContext(const Batch& batch) : batch_(batch) {}
  Tensor attend(const Operator&, const ops::Attention& attention, const Tensor& q, const Tensor& k,
                const Tensor& v) override {
    return autograd::attention(attention, q, k, v, batch_);
  }

 private:
  const Batch& batch_;
};

}  // namespace

Model Model::create(const Json& config, const std::string& where, const PluginRegistry& registry,
                    const Kernels& kernels, const ModelOptions& options) {
  Model model = declared(config, where, registry, kernels, options);
  model.init_weights(options.seed, false);
  return model;
}

Model Model::declared(const Json& config, const std::string& where, const PluginRegistry& registry,
                      const Kernels& kernels, const ModelOptions& options) {
  DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", where);
  Model model;
  model.config_ = config;
  model.kernels_ = &kernels;
  model.kind_ = options.kind;
  if (options.new_value_head) {
    // Scores are learned at the last token, the end token; where that is the padding too, readers would skip it.
    const auto eos = config.value("eos_token_id", Json()), pad = config.value("pad_token_id", Json());
    if (!pad.is_null() && (eos == pad || (eos.is_array() && std::count(eos.begin(), eos.end(), pad) > 0)))
      model.config_["pad_token_id"] = nullptr;
  }
  model.graph_ = std::make_shared<const ModelGraph>(declare_architecture(config, where, registry));
  check_memory(*model.graph_, options.dtype, where);
  model.build_units(options.dtype);
  model.bound_ = std::make_shared<const BoundGraph>(*model.graph_, kernels, options.dtype);
  return model;
}

Model Model::load(const std::filesystem::path& directory, const PluginRegistry& registry, const Kernels& kernels,
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
  model.directory_ = directory;
  if (!options.random_init)
    model.load_weights(directory, options);
  else if (options.values)
    model.init_weights(options.seed, false);
  return model;
}

Model Model::clone(ModelKind kind) const {
  Model copy;
  copy.config_ = config_, copy.kernels_ = kernels_, copy.kind_ = kind, copy.graph_ = graph_, copy.bound_ = bound_;
  copy.directory_ = directory_, copy.base_ = base_, copy.recompute_ = recompute_, copy.saved_modules_ = saved_modules_;
  copy.build_units(sections_[0].flat().scalar_type());
  copy.init_weights(0, true);
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < sections_.size(); ++i) copy.sections_[i].flat().copy_(sections_[i].flat());
  if (kind == kind_ && head_) copy.head_->flat().copy_(head_->flat());
  if (adapter_) copy.adapter_ = std::make_unique<Adapter>(*adapter_);
  return copy;
}

void Model::build_units(at::ScalarType dtype) {
  for (const auto& section : graph_->sections) sections_.emplace_back(section.name, section.blocks, device(), dtype);
  if (kind_ == ModelKind::value) {
    const ParamSpec score = value_head(*graph_);
    head_ = std::make_unique<ParamStorage>("score", std::vector<ParamBlock>{{{score}}}, device(), dtype);
  } else if (!graph_->head_tied) {
    head_ = std::make_unique<ParamStorage>("head", std::vector<ParamBlock>{{{graph_->head}}}, device(), dtype);
  }
}

std::vector<ParamStorage*> Model::units() {
  std::vector<ParamStorage*> result;
  for (auto& unit : sections_)
    if (!unit.blocks().empty()) result.push_back(&unit);
  if (head_) result.push_back(head_.get());
  if (adapter_)
    for (auto* unit : adapter_->units()) result.push_back(unit);
  return result;
}

bool Model::finite() const {
  const auto numbers = [](const ParamStorage* unit) {
    if (unit->flat().numel() == 0) return true;
    const auto [least, most] = at::aminmax(unit->flat());  // NaN where there is one
    return std::isfinite(least.item<double>()) && std::isfinite(most.item<double>());
  };
  for (const auto* unit : const_cast<Model*>(this)->units())
    if (!numbers(unit)) return false;
  return true;
}

int64_t Model::parameter_count() const {
  int64_t count = head_ ? head_->layout().parameter_count() : 0;
  for (const auto& unit : sections_) count += unit.layout().parameter_count();
  return count;
}

int64_t Model::trained_parameter_count() const {
  int64_t count = 0;
  const auto add = [&](const ParamStorage& unit) {
    for (size_t b = 0; b < unit.blocks().size(); ++b)
      if (unit.trained(b)) count += unit.block(b).numel();
  };
  for (const auto& unit : sections_) add(unit);
  if (head_) add(*head_);
  if (adapter_)
    for (const auto* unit : std::as_const(*adapter_).units()) add(*unit);
  return count;
}

void Model::add_adapter(const AdapterSettings& settings, uint64_t seed) {
  DSE_CHECK(!adapter_, "a second adapter");
  adapter_ = std::make_unique<Adapter>(*graph_, settings, *kernels_, dtype());
  adapter_->initialize(seed);
}

void Model::enable_training(const std::vector<std::string>& beside) {
  anchor_ = device().empty({0}, dtype()).requires_grad_(true);
  if (!adapter_) {
    for (auto* unit : units()) unit->train();
    return;
  }
  for (size_t i = 0; i < sections_.size(); ++i) sections_[i].train(blocks_of_kinds(graph_->sections[i], beside));
  if (head_ && (kind_ == ModelKind::value || std::count(beside.begin(), beside.end(), "embeddings"))) head_->train();
  for (auto* unit : adapter_->units()) unit->train();
}

void Model::zero_grad() {
  for (auto* unit : units()) unit->zero_grad();
}

Parameter Model::head() const {
  DSE_CHECK(kind_ == ModelKind::language, "a value model has no logits");
  return head_ ? Parameter(*head_, 0) : Parameter(sections_[0], size_t(graph_->tied_block));
}

Tensor Model::run_section(size_t section, Tensor x, const Batch& batch, AttentionContext& attention,
                          bool adapted) const {
  const Section& s = graph_->sections[section];
  const ParamStorage& unit = sections_[section];
  const auto block = [&](int i) { return i < 0 ? Parameter() : Parameter(unit, size_t(i)); };
  const auto linear = [&](const ops::Linear& op, const Tensor& in, int weight, int bias) {
    const Tensor y = autograd::linear(op, in, block(weight), block(bias));
    return adapter_ && adapted ? adapter_->add(section, weight, in, y) : y;
  };
  std::map<int, Tensor> values{{s.input, std::move(x)}};
  for (size_t i = 0; i < s.operators.size(); ++i) {
    const Operator& op = s.operators[i];
    const BoundOperator& bound = bound_->sections[section][i];
    const Tensor in = op.inputs.empty() ? Tensor() : values.at(op.inputs[0]);
    Tensor& out = values[op.output];
    switch (op.kind) {
      case Operator::embed:
        out = autograd::embedding(*bound.embedding, block(op.weight), batch.tokens, anchor_);
        if (op.factor != 1) out = out * op.factor;
        break;
      case Operator::positions:
        out = autograd::embedding(*bound.embedding, block(op.weight), batch.positions + op.offset, anchor_);
        break;
      case Operator::rms_norm:
        out = autograd::rms_norm(*bound.rms_norm, in, block(op.weight));
        break;
      case Operator::layer_norm:
        out = autograd::layer_norm(*bound.layer_norm, in, block(op.weight), block(op.bias));
        break;
      case Operator::linear:
        out = linear(*bound.linear, in, op.weight, op.bias);
        break;
      case Operator::attention: {
        const int64_t turned = op.heads + op.kv_heads;
        Tensor qkv =
            linear(*bound.linear, in, op.weight, op.bias).view({in.size(0), op.heads + 2 * op.kv_heads, op.head_dim});
        if (bound.q_norm || bound.k_norm) {
          const auto heads = [&](int64_t first, int64_t count, const std::optional<ops::RmsNorm>& norm, int weight) {
            const Tensor part = qkv.narrow(1, first, count);
            if (!norm) return part;
            return autograd::rms_norm(*norm, part.reshape({-1, op.head_dim}).contiguous(), block(weight))
                .view(part.sizes());
          };
          qkv = at::cat({heads(0, op.heads, bound.q_norm, op.q_norm),
                         heads(op.heads, op.kv_heads, bound.k_norm, op.k_norm), heads(turned, op.kv_heads, {}, -1)},
                        1);
        }
        if (bound.rope) qkv = autograd::rope(*bound.rope, qkv, batch.positions, batch.lengths);
        const Tensor y = attention.attend(op, *bound.attention, qkv.narrow(1, 0, op.heads),
                                          qkv.narrow(1, op.heads, op.kv_heads), qkv.narrow(1, turned, op.kv_heads));
        out = linear(*bound.out_linear, y.reshape({in.size(0), op.heads * op.head_dim}), op.out_weight, op.out_bias);
        break;
      }
      case Operator::gated_mlp:
        out = linear(*bound.out_linear,
                     autograd::gated_activation(*bound.gated_activate, linear(*bound.linear, in, op.weight, op.bias)),
                     op.out_weight, op.out_bias);
        break;
      case Operator::mlp:
        out = linear(*bound.out_linear,
                     autograd::activation(*bound.activate, linear(*bound.linear, in, op.weight, op.bias)),
                     op.out_weight, op.out_bias);
        break;
      case Operator::add:
        out = in + values.at(op.inputs[1]);
        break;
      case Operator::scale:
        out = in * op.factor;
        break;
    }
    for (const int value : bound.last_reads) values.erase(value);
  }
  return values.at(s.output);
}

// Runs a section without grad, and once more with it in the backward pass, where the gradients of its
// parameters go straight into their buffers.
struct RecomputedSection : torch::autograd::Function<RecomputedSection> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Model* model, int64_t section,
                        const Batch* batch) {
    ctx->save_for_backward({x, batch->tokens, batch->positions, batch->lengths, batch->starts});
    ctx->saved_data["model"] = int64_t(reinterpret_cast<intptr_t>(model));
    ctx->saved_data["section"] = section;
    ctx->saved_data["offsets"] = batch->offsets;
    ctx->saved_data["past"] = batch->past;
    ctx->saved_data["longest"] = batch->longest;
    RaggedContext attention(*batch);
    return model->run_section(size_t(section), x, *batch, attention, true);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto* model = reinterpret_cast<const Model*>(ctx->saved_data["model"].toInt());
    const Batch batch{.offsets = ctx->saved_data["offsets"].toIntVector(),
                      .past = ctx->saved_data["past"].toIntVector(),
                      .longest = ctx->saved_data["longest"].toInt(),
                      .tokens = saved[1],
                      .positions = saved[2],
                      .lengths = saved[3],
                      .starts = saved[4]};
    RaggedContext attention(batch);
    Tensor x = saved[0].detach().requires_grad_(true);
    {
      at::AutoGradMode grad(true);
      Tensor y = model->run_section(size_t(ctx->saved_data["section"].toInt()), x, batch, attention, true);
      torch::autograd::backward({y}, {grads[0]});
    }
    return {x.grad(), Tensor(), Tensor(), Tensor()};
  }
};

void Model::check_bounds(const Batch& batch) const {
  DSE_CHECK_USER(graph_->max_positions == 0 || batch.longest <= graph_->max_positions,
                 "a sequence is longer than the model's {} positions: lower the lengths", graph_->max_positions);
  DSE_CHECK_USER(batch.least_id >= 0 && batch.largest_id < graph_->vocabulary,
                 "token id {} is outside the vocabulary of {}", batch.least_id < 0 ? batch.least_id : batch.largest_id,
                 graph_->vocabulary);
}

Tensor Model::hidden(const Batch& batch, bool adapted) const {
  check_bounds(batch);
  DSE_CHECK_USER(adapted || !adapter_ || adapter_->settings().init.empty(),
                 "{}: the base of an adapter with init_lora_weights = '{}' is changed by it and no reference: give a "
                 "reference of its own",
                 directory_.string(), adapter_->settings().init);
  RaggedContext attention(batch);
  Tensor x;
  for (size_t i = 0; i < sections_.size(); ++i) {
    if (recompute_ && adapted && i > 0 && at::GradMode::is_enabled() && x.requires_grad())
      x = RecomputedSection::apply(x, this, int64_t(i), &batch);
    else
      x = run_section(i, x, batch, attention, adapted);
  }
  return x;
}

Tensor Model::hidden(const Batch& batch, AttentionContext& attention) const {
  check_bounds(batch);
  Tensor x;
  for (size_t i = 0; i < sections_.size(); ++i) x = run_section(i, x, batch, attention, true);
  return x;
}

autograd::LogProb Model::log_prob(const Tensor& hidden, const Tensor& rows, const Tensor& targets, double temperature,
                                  bool entropy) const {
  return autograd::log_prob(bound_->head, hidden.index_select(0, rows), head(), targets, temperature, entropy);
}

Tensor Model::logits(const Tensor& hidden_TH) const {
  at::NoGradGuard no_grad;
  return bound_->head.logits(hidden_TH, head().value());
}

Tensor Model::values(const Tensor& hidden, const Tensor& rows) const {
  DSE_CHECK(kind_ == ModelKind::value, "a language model has no values");
  return autograd::linear(bound_->value_head, hidden.index_select(0, rows), Parameter(*head_, 0), {}).squeeze(1);
}

std::vector<Model::NamedTensor> Model::tensors() const {
  std::vector<NamedTensor> result;
  const auto list = [&](const ParamStorage& unit, size_t section) {
    for (size_t b = 0; b < unit.blocks().size(); ++b)
      for (size_t p = 0; p < unit.blocks()[b].parts.size(); ++p)
        result.push_back({&unit.blocks()[b].parts[p], unit.part(b, p), unit.trained() ? unit.grad_part(b, p) : Tensor(),
                          section, b, p});
  };
  for (size_t s = 0; s < sections_.size(); ++s) list(sections_[s], s);
  if (head_) list(*head_, sections_.size());
  return result;
}

}  // namespace dsengine
