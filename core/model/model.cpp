#include "model/model.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "base/check.h"
#include "memory/arena.h"
#include "memory/ledger.h"
#include "ops/wide.h"

namespace dsengine {

using at::Tensor;

Model::Model(ModelGraph graph, Json config, ModelKind kind, const Kernels& kernels, at::ScalarType dtype,
             StreamSettings streamed)
    : graph_(std::make_shared<const ModelGraph>(std::move(graph))),
      bound_(std::make_shared<const BoundGraph>(*graph_, kernels, dtype)),
      kernels_(&kernels),
      config_(std::move(config)),
      kind_(kind) {
  build_weights(dtype, streamed, nullptr);
}

Model Model::clone(ModelKind kind) const {
  Model copy;
  copy.config_ = config_, copy.kernels_ = kernels_, copy.kind_ = kind, copy.graph_ = graph_, copy.bound_ = bound_;
  copy.origin_ = origin_;
  const StreamedWeights* streamed = weights_->streamed.get();
  copy.build_weights(dtype(), streamed ? streamed->settings() : StreamSettings{}, streamed);
  copy.executor_->set_recompute(executor_->recompute());
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < weights_->sections.size(); ++i)
    at::Tensor(copy.weights_->sections[i].held()).copy_(weights_->sections[i].held());
  if (copy.weights_->head && kind == kind_) {
    copy.weights_->head->flat().copy_(weights_->head->flat());
    if (copy.weights_->head->wide())
      copy.weights_->head->wide_values().copy_(weights_->head->wide() ? weights_->head->wide_values()
                                                                      : weights_->head->flat());
  } else if (copy.weights_->head) {
    copy.weights_->head->flat().zero_();  // a new head
  }
  if (weights_->adapter) copy.weights_->adapter = std::make_unique<Adapter>(*weights_->adapter);
  return copy;
}

void Model::build_weights(at::ScalarType dtype, StreamSettings settings, const StreamedWeights* shared) {
  weights_ = std::make_unique<Weights>();
  executor_ = std::make_unique<Executor>(*graph_, *bound_, *weights_);
  const auto size = int64_t(c10::elementSize(dtype));
  std::vector<ParamLayout> layouts;
  for (const auto& section : graph_->sections) layouts.emplace_back(section.name, section.blocks, size);
  if (kind_ == ModelKind::value)
    layouts.emplace_back("score", std::vector<ParamBlock>{{{value_head(*graph_)}}}, size);
  else if (!graph_->head_tied)
    layouts.emplace_back("head", std::vector<ParamBlock>{{{graph_->head}}}, size);
  const auto is_streamed = [&](size_t section) {
    return settings.apart() && section < graph_->sections.size() && holds_linears(graph_->sections[section]);
  };
  // Of a unit whose matrices come and go its vectors are here, of one that is trained nothing is.
  std::vector<int64_t> here, homes;
  for (size_t i = 0; i < layouts.size(); ++i) {
    const int64_t all = layouts[i].numel();
    if (!is_streamed(i))
      here.push_back(all);
    else if (settings.trained)
      homes.push_back(all);
    else
      here.push_back(all - layouts[i].decayed_numel());
  }
  const MemoryScope scope(MemoryTag::weights);
  Arena arena(device(), dtype, here);
  std::optional<Arena> home;
  if (!homes.empty()) {
    const OffloadScope elsewhere(device(), MemoryTag::weights);
    home.emplace(offload_memory(device()), ops::wide(dtype), homes);
  }
  if (settings.apart()) weights_->streamed = std::make_unique<StreamedWeights>(*kernels_, settings, dtype);
  for (size_t i = 0; i < layouts.size(); ++i) {
    const int64_t all = layouts[i].numel(), vectors = all - layouts[i].decayed_numel();
    if (i == graph_->sections.size())
      weights_->head = std::make_unique<ParamStorage>(std::move(layouts[i]), arena.take(all));
    else if (!is_streamed(i))
      weights_->sections.emplace_back(std::move(layouts[i]), arena.take(all));
    else if (settings.trained)
      weights_->sections.push_back(ParamStorage::streamed(std::move(layouts[i]), home->take(all), dtype));
    else
      weights_->sections.push_back(ParamStorage::without_matrices(std::move(layouts[i]), arena.take(vectors)));
  }
  for (size_t i = 0; i < weights_->sections.size(); ++i)
    if (is_streamed(i)) weights_->streamed->add(i, weights_->sections[i], shared);
  // What is trained keeps what it is loaded with; so does a value head, which is little.
  if (ops::wide(dtype) == dtype) return;
  const auto widen = [&](ParamStorage& unit) {
    unit.widen(0, device().empty({unit.layout().numel()}, ops::wide(dtype)).zero_());
  };
  for (auto& section : weights_->sections)
    if (settings.trained && settings.wide && section.whole() && section.layout().numel() > 0) widen(section);
  if (weights_->head && ((settings.trained && settings.wide) || kind_ == ModelKind::value)) widen(*weights_->head);
}

bool Model::finite() const {
  const auto numbers = [](const Tensor& values) {
    if (values.numel() == 0) return true;
    const auto [least, most] = at::aminmax(values);  // NaN where there is one
    return std::isfinite(least.item<double>()) && std::isfinite(most.item<double>());
  };
  for (size_t s = 0; s <= weights_->sections.size(); ++s) {
    const StreamedWeights::Hold hold(weights_->streamed.get(), s);
    for (const auto* unit : weights_->of_section(s))
      for (size_t b = 0; b < unit->blocks().size(); ++b)
        if (!numbers(unit->block(b))) return false;
  }
  let_go_buffers();
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

void Model::enable_training(const std::vector<std::string>& beside, bool offload, bool wide, const Sharding& sharding) {
  {
    std::optional<OffloadScope> elsewhere;
    if (offload) elsewhere.emplace(device(), MemoryTag::gradients);
    const ParamStorage::Training how{offload ? &offload_memory(device()) : nullptr, wide, sharding};
    const auto train = [&](ParamStorage& unit) { unit.train(std::vector<bool>(unit.blocks().size(), true), how); };
    if (!weights_->adapter) {
      for (auto* unit : units()) train(*unit);
    } else {
      for (size_t i = 0; i < weights_->sections.size(); ++i)
        weights_->sections[i].train(blocks_of_kinds(graph_->sections[i], beside), how);
      if (weights_->head && (kind_ == ModelKind::value || std::count(beside.begin(), beside.end(), "embeddings")))
        train(*weights_->head);
      for (auto* unit : weights_->adapter->units()) train(*unit);
    }
  }
  if (offload || sharding.gradients())
    weights_->gradients = std::make_unique<PartedGradients>(device(), *weights_, sharding);
  executor_->enable_training();
}

Traffic Model::take_traffic() const {
  Traffic traffic;
  if (weights_->streamed) traffic += weights_->streamed->take_traffic();
  if (weights_->gradients) traffic += weights_->gradients->take_traffic();
  return traffic;
}

void Model::let_go_buffers() const {
  if (weights_->streamed) weights_->streamed->let_go_buffer();
  if (weights_->gradients) weights_->gradients->let_go_buffer();
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

bool Model::recordable() const {
  if (weights_->streamed || weights_->rollout) return false;
  return kernels_->on_card() ? kernels_->recordable() : kernels_->has(dse::Op::cached_attention);
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

std::vector<Model::NamedTensor> Model::tensors_of(size_t section) const {
  std::vector<NamedTensor> result;
  const bool is_head = section == weights_->sections.size();
  if (is_head && !weights_->head) return result;
  const ParamStorage& unit = is_head ? *weights_->head : weights_->sections[section];
  for (size_t b = 0; b < unit.blocks().size(); ++b)
    for (size_t p = 0; p < unit.blocks()[b].parts.size(); ++p)
      result.push_back({&unit.blocks()[b].parts[p], unit.kept_part(b, p),
                        unit.trained() ? unit.grad_part(b, p) : Tensor(), section, b, p});
  return result;
}

std::vector<Model::NamedTensor> Model::tensors() const {
  std::vector<NamedTensor> result;
  for (size_t s = 0; s <= weights_->sections.size(); ++s) std::ranges::move(tensors_of(s), std::back_inserter(result));
  return result;
}

void Model::each_section(Access access, const std::function<void(const std::vector<NamedTensor>&)>& f) const {
  for (size_t s = 0; s <= weights_->sections.size(); ++s) {
    const StreamedWeights::Hold hold(weights_->streamed.get(), s);
    f(tensors_of(s));
    if (access == Access::read) continue;
    for (auto* unit : weights_->of_section(s)) unit->settle();
    if (weights_->streamed) weights_->streamed->keep(s);
  }
  let_go_buffers();
}

}  // namespace dsengine
