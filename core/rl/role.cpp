#include "rl/role.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "memory/ledger.h"

namespace dsengine {

namespace {

constexpr int64_t kAveragedAtOnce = int64_t{1} << 20;

// In float32.
at::Tensor copy_in(const Device& device, const at::Tensor& values) {
  at::Tensor copy = device.empty(values.sizes(), at::kFloat);
  return copy.copy_(values);
}

}  // namespace

const Device& Role::average_memory() const { return offload.average ? offload_memory(model.device()) : model.device(); }

void Role::enable_training(uint64_t seed, const Sharding& sharding) {
  const auto& s = settings;
  if (lora.rank > 0) {
    DSE_CHECK_USER(!model.adapter(),
                   "{} is an adapter already: leave lora.rank at 0 to train it on, or merge it first (dsengine export)",
                   model.origin().directory.string());
    model.add_adapter({lora.rank, lora.alpha, lora.rslora, lora.targets}, seed);
  }
  model.enable_training(lora.also_train, offload.gradients, s.master_weights, sharding);
  const double adapter_rate = model.adapter() && lora.learning_rate > 0 ? lora.learning_rate : s.learning_rate;
  DSE_CHECK_USER(s.learning_rate > 0 || adapter_rate == s.learning_rate,
                 "lora.learning_rate follows the schedule of learning_rate, which is 0: set that one above 0");
  std::vector<const ParamStorage*> pairs;
  if (model.adapter()) pairs = model.adapter()->units();
  std::vector<ParamStorage*> units;
  std::vector<double> factors;
  for (auto* unit : model.units()) {
    if (!unit->trained()) continue;
    units.push_back(unit);
    const bool is_pair = std::count(pairs.begin(), pairs.end(), unit) > 0;
    factors.push_back(is_pair && s.learning_rate > 0 ? adapter_rate / s.learning_rate : 1);
  }
  optimizer = std::make_unique<AdamW>(
      model.kernels(), units,
      AdamWSettings{s.beta1, s.beta2, s.epsilon, s.weight_decay, s.grad_clip, s.moments, seed, offload.moments},
      factors);
  const MemoryScope scope(MemoryTag::average);
  std::optional<OffloadScope> elsewhere;
  if (offload.average) elsewhere.emplace(model.device(), MemoryTag::average);
  if (s.ema_decay > 0)
    for (const auto* unit : units) average.push_back(copy_in(average_memory(), unit->trained_flat()));
}

const Device& Roles::device() const {
  for (const auto& entry : kRoles)
    if (const auto& role = this->*entry.role) return role->model.device();
  DSE_CHECK(false, "no role");
}

std::string prefix_of(const RoleEntry& entry, uint32_t trained) {
  for (const auto& first : kRoles)
    if (trained & first.bit) return &first == &entry ? "" : std::string(entry.name) + "_";
  DSE_CHECK(false, "no role is trained");
}

RoleFolders folders_of(const RoleEntry& entry, uint32_t trained) {
  const std::string prefix = prefix_of(entry, trained);
  return {prefix.empty() ? "model" : entry.name, prefix + "ema", prefix + "adapter"};
}

double Role::step(double learning_rate, Communicator& ranks) {
  const double norm = optimizer->step(learning_rate, ranks);
  at::NoGradGuard no_grad;
  for (size_t u = 0; u < average.size(); ++u) {
    const ParamStorage& unit = *optimizer->units()[u];
    at::Tensor weights = unit.trained_flat();
    if (offload.average && !unit.streamed()) {
      const OffloadScope scope(model.device(), MemoryTag::workspace);
      averages_traffic.count(int64_t(weights.nbytes()), [&] { weights = copy_in(average_memory(), weights); });
    }
    // Of weights in bfloat16 so many at a time, as float32.
    const int64_t all = weights.numel(), step = weights.scalar_type() == at::kFloat ? all : kAveragedAtOnce;
    for (int64_t first = 0; first < all; first += step) {
      const int64_t count = std::min(step, all - first);
      average[u].narrow(0, first, count).lerp_(weights.narrow(0, first, count).to(at::kFloat), 1 - settings.ema_decay);
    }
  }
  return norm;
}

Traffic Role::take_traffic() {
  Traffic traffic = std::exchange(averages_traffic, {});
  if (optimizer) traffic += optimizer->take_traffic();
  traffic += model.take_traffic();
  return traffic;
}

Model Role::averaged() const {
  const MemoryScope scope(MemoryTag::weights);
  Model copy = model.clone(model.kind());
  at::NoGradGuard no_grad;
  const auto to = copy.units(), from = model.units();
  size_t next = 0;
  for (size_t u = 0; u < from.size(); ++u)
    if (from[u]->trained()) {
      const at::Tensor& mean = average[next++];
      if (to[u]->held().scalar_type() != mean.scalar_type())  // float32 beside what is read
        to[u]->widen(from[u]->trained_begin(), copy_in(model.device(), mean));
      else
        to[u]->span(from[u]->trained_begin(), mean.numel()).copy_(mean);
    }
  return copy;
}

}  // namespace dsengine
