#include "model/model.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "base/check.h"
#include "memory/arena.h"
#include "memory/ledger.h"

namespace dsengine {

using at::Tensor;

Model::Model(ModelGraph graph, Json config, ModelKind kind, const Kernels& kernels, at::ScalarType dtype)
    : graph_(std::make_shared<const ModelGraph>(std::move(graph))),
      bound_(std::make_shared<const BoundGraph>(*graph_, kernels, dtype)),
      kernels_(&kernels),
      config_(std::move(config)),
      kind_(kind) {
  build_weights(dtype);
}

Model Model::clone(ModelKind kind) const {
  Model copy;
  copy.config_ = config_, copy.kernels_ = kernels_, copy.kind_ = kind, copy.graph_ = graph_, copy.bound_ = bound_;
  copy.origin_ = origin_;
  copy.build_weights(dtype());
  copy.executor_->set_recompute(executor_->recompute());
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < weights_->sections.size(); ++i)
    copy.weights_->sections[i].flat().copy_(weights_->sections[i].flat());
  if (copy.weights_->head && kind == kind_)
    copy.weights_->head->flat().copy_(weights_->head->flat());
  else if (copy.weights_->head)
    copy.weights_->head->flat().zero_();  // a new head
  if (weights_->adapter) copy.weights_->adapter = std::make_unique<Adapter>(*weights_->adapter);
  return copy;
}

void Model::build_weights(at::ScalarType dtype) {
  weights_ = std::make_unique<Weights>();
  executor_ = std::make_unique<Executor>(*graph_, *bound_, *weights_);
  const auto size = int64_t(c10::elementSize(dtype));
  std::vector<ParamLayout> layouts;
  for (const auto& section : graph_->sections) layouts.emplace_back(section.name, section.blocks, size);
  if (kind_ == ModelKind::value)
    layouts.emplace_back("score", std::vector<ParamBlock>{{{value_head(*graph_)}}}, size);
  else if (!graph_->head_tied)
    layouts.emplace_back("head", std::vector<ParamBlock>{{{graph_->head}}}, size);
  std::vector<int64_t> numels;
  for (const auto& layout : layouts) numels.push_back(layout.numel());
  const MemoryScope scope(MemoryTag::weights);
  Arena arena(device(), dtype, numels);
  for (size_t i = 0; i < layouts.size(); ++i) {
    ParamStorage unit(std::move(layouts[i]), arena.take(numels[i]));
    if (i < graph_->sections.size())
      weights_->sections.push_back(std::move(unit));
    else
      weights_->head = std::make_unique<ParamStorage>(std::move(unit));
  }
}

bool Model::finite() const {
  const auto numbers = [](const ParamStorage* unit) {
    if (unit->flat().numel() == 0) return true;
    const auto [least, most] = at::aminmax(unit->flat());  // NaN where there is one
    return std::isfinite(least.item<double>()) && std::isfinite(most.item<double>());
  };
  for (const auto* unit : units())
    if (!numbers(unit)) return false;
  return true;
}

int64_t Model::parameter_count() const {
  int64_t count = weights_->head ? weights_->head->layout().parameter_count() : 0;
  for (const auto& unit : weights_->sections) count += unit.layout().parameter_count();
  return count;
}

int64_t Model::trained_parameter_count() const {
  int64_t count = 0;
  const auto add = [&](const ParamStorage& unit) {
    for (size_t b = 0; b < unit.blocks().size(); ++b)
      if (unit.trained(b)) count += unit.block(b).numel();
  };
  for (const auto& unit : weights_->sections) add(unit);
  if (weights_->head) add(*weights_->head);
  if (weights_->adapter)
    for (const auto* unit : std::as_const(*weights_->adapter).units()) add(*unit);
  return count;
}

void Model::add_adapter(const AdapterSettings& settings, uint64_t seed) {
  auto adapter = std::make_unique<Adapter>(*graph_, settings, *kernels_, dtype());
  adapter->initialize(seed);
  add_adapter(std::move(adapter));
}

void Model::add_adapter(std::unique_ptr<Adapter> adapter) {
  DSE_CHECK(!weights_->adapter, "a second adapter");
  weights_->adapter = std::move(adapter);
}

void Model::enable_training(const std::vector<std::string>& beside) {
  if (!weights_->adapter) {
    for (auto* unit : units()) unit->train();
    executor_->enable_training();
    return;
  }
  for (size_t i = 0; i < weights_->sections.size(); ++i)
    weights_->sections[i].train(blocks_of_kinds(graph_->sections[i], beside));
  if (weights_->head && (kind_ == ModelKind::value || std::count(beside.begin(), beside.end(), "embeddings")))
    weights_->head->train();
  for (auto* unit : weights_->adapter->units()) unit->train();
  executor_->enable_training();
}

void Model::zero_grad() {
  for (auto* unit : units()) unit->zero_grad();
}

void Model::check_bounds(const Batch& batch) const {
  DSE_CHECK_USER(graph_->max_positions == 0 || batch.longest <= graph_->max_positions,
                 "a sequence is longer than the model's {} positions: lower the lengths", graph_->max_positions);
  DSE_CHECK_USER(batch.least_id >= 0 && batch.largest_id < graph_->vocabulary,
                 "token id {} is outside the vocabulary of {}", batch.least_id < 0 ? batch.least_id : batch.largest_id,
                 graph_->vocabulary);
}

Tensor Model::hidden(const Batch& batch, bool adapted) const {
  check_bounds(batch);
  DSE_CHECK_USER(adapted || !weights_->adapter || weights_->adapter->settings().init.empty(),
                 "{}: the base of an adapter with init_lora_weights = '{}' is changed by it and no reference: give a "
                 "reference of its own",
                 origin_.directory.string(), weights_->adapter->settings().init);
  return executor_->hidden(batch, adapted);
}

Tensor Model::hidden(const Batch& batch, AttentionContext& attention) const {
  check_bounds(batch);
  return executor_->hidden(batch, attention);
}

autograd::LogProb Model::log_prob(const Tensor& hidden, const Tensor& rows, const Tensor& targets, double temperature,
                                  bool entropy) const {
  DSE_CHECK(kind_ == ModelKind::language, "a value model has no logits");
  return executor_->log_prob(hidden, rows, targets, temperature, entropy);
}

Tensor Model::logits(const Tensor& hidden_TH) const {
  DSE_CHECK(kind_ == ModelKind::language, "a value model has no logits");
  return executor_->logits(hidden_TH);
}

bool Model::exact_rollouts() const {
  return kind_ == ModelKind::language && !weights_->rollout && executor_->row_invariant() &&
         (!adapter() || adapter()->row_invariant());
}

void Model::set_rollout_weights(Packing packing) {
  DSE_CHECK(kind_ == ModelKind::language, "a value model generates nothing");
  weights_->rollout =
      packing == Packing::none ? nullptr : std::make_unique<RolloutWeights>(*graph_, *kernels_, dtype(), packing);
}

void Model::pack_rollout_weights() const {
  if (weights_->rollout) executor_->pack_rollout_weights();
}

void Model::drop_rollout_weights() const {
  if (weights_->rollout) weights_->rollout->drop();
}

Tensor Model::log_prob_of(const Tensor& logits_TV, const Tensor& temperatures, const Tensor& targets) const {
  return executor_->log_prob_of(logits_TV, temperatures, targets);
}

std::pair<Tensor, Tensor> Model::draw(const Tensor& logits_TV, const Tensor& temperatures, const Tensor& draws) const {
  return executor_->draw(logits_TV, temperatures, draws);
}

Tensor Model::values(const Tensor& hidden, const Tensor& rows) const {
  DSE_CHECK(kind_ == ModelKind::value, "a language model has no values");
  return executor_->values(hidden, rows);
}

std::vector<Model::NamedTensor> Model::tensors() const {
  std::vector<NamedTensor> result;
  const auto list = [&](const ParamStorage& unit, size_t section) {
    for (size_t b = 0; b < unit.blocks().size(); ++b)
      for (size_t p = 0; p < unit.blocks()[b].parts.size(); ++p)
        result.push_back({&unit.blocks()[b].parts[p], unit.part(b, p), unit.trained() ? unit.grad_part(b, p) : Tensor(),
                          section, b, p});
  };
  for (size_t s = 0; s < weights_->sections.size(); ++s) list(weights_->sections[s], s);
  if (weights_->head) list(*weights_->head, weights_->sections.size());
  return result;
}

}  // namespace dsengine
