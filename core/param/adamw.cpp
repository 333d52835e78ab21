#include "param/adamw.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "memory/arena.h"
#include "memory/ledger.h"

namespace dsengine {

namespace {

constexpr int64_t kStaged = int64_t{1} << 20;  // elements

// Whether what is trained is bfloat16 alone.
bool narrow(const ParamStorage& unit) { return unit.trained_flat().scalar_type() == at::kBFloat16; }

bool grad_elsewhere(const std::vector<ParamStorage*>& units) { return !units.empty() && units[0]->grad_elsewhere(); }

}  // namespace

double AdamW::grad_norm(Communicator& ranks) const {
  double total[1] = {0};
  // Each rank sums the squares of its share: of its parts of all units, or of some units as a whole.
  for (size_t u = 0; u < units_.size(); ++u)
    if (units_[u]->grad_cut() || u % size_t(ranks.size()) == size_t(ranks.rank()))
      total[0] += sum_of_squares_(units_[u]->grad());
  ranks.sum(total);
  return std::sqrt(total[0]);
}

AdamW::AdamW(const Kernels& kernels, std::vector<ParamStorage*> units, AdamWSettings settings,
             std::vector<double> rate_factors)
    : device_(kernels.device()),
      sum_of_squares_(grad_elsewhere(units) ? kernels.beside() : kernels),
      update_(settings.offload ? kernels.beside() : kernels),
      kernels_(settings.offload ? kernels.beside() : kernels, settings.moments),
      units_(std::move(units)),
      settings_(settings),
      rate_factors_(std::move(rate_factors)) {
  rate_factors_.resize(units_.size(), 1);
  std::vector<int64_t> bytes;
  for (auto* unit : units_) {
    DSE_CHECK(unit->trained() && (narrow(*unit) || unit->trained_flat().scalar_type() == at::kFloat), "unit {}",
              unit->name());
    DSE_CHECK(!narrow(*unit) || !unit->streamed(), "unit {} is trained at its home", unit->name());
    DSE_CHECK(unit->grad_elsewhere() == grad_elsewhere(units_), "unit {}", unit->name());
    DSE_CHECK(settings.offload || !(unit->streamed() || unit->grad_elsewhere()), "unit {} is elsewhere", unit->name());
    bytes.push_back(Moments::bytes_of(*unit, settings.moments));
  }
  if (units_.empty()) return;
  const MemoryScope scope(MemoryTag::moments);
  const Device& there = moment_memory();
  std::optional<OffloadScope> elsewhere;
  if (settings.offload) {
    elsewhere.emplace(device_, MemoryTag::moments);
    staged_gradient_ = there.empty({kStaged}, at::kFloat);
  }
  const bool some_narrow = std::ranges::any_of(units_, [](const auto* unit) { return narrow(*unit); });
  if (settings.offload || some_narrow) staged_weight_ = there.empty({kStaged}, at::kFloat);
  if (settings.offload && some_narrow) staged_rounded_ = there.empty({kStaged}, at::kBFloat16);
  Arena arena(there, at::kByte, bytes);
  for (size_t u = 0; u < units_.size(); ++u)
    moments_.emplace_back(*units_[u], settings.moments, arena.take(bytes[u]), kernels_);
}

double AdamW::step(double learning_rate, Communicator& ranks) {
  const double norm = grad_norm(ranks);
  DSE_CHECK_USER(std::isfinite(norm),
                 "the gradient norm is not finite: lower the learning rate, or look at the data of this step");
  ++steps_;
  const auto& s = settings_;
  const double correction1 = 1 - std::pow(s.beta1, double(steps_));
  const double correction2 = 1 - std::pow(s.beta2, double(steps_));
  for (size_t u = 0; u < units_.size(); ++u) {
    const double rate = learning_rate * rate_factors_[u];
    const ParamStorage& unit = *units_[u];
    const Philox draws(s.seed, Purpose::round, uint64_t(steps_), name_hash(unit.name()));
    std::optional<OffloadScope> elsewhere;  // what they are unpacked to lies beside them
    if (s.offload) elsewhere.emplace(device_, MemoryTag::workspace);
    const Philox update_draws(s.seed, Purpose::update, uint64_t(steps_), name_hash(unit.name()));
    moments_[u].update(draws, [&](int64_t begin, int64_t, const at::Tensor& mean, const at::Tensor& square) {
      update(unit, begin, mean, square,
             {.clip = s.grad_clip > 0 && norm > s.grad_clip ? s.grad_clip / (norm + 1e-6) : 1,
              .beta1 = s.beta1,
              .beta2 = s.beta2,
              .step_size = rate / correction1,
              .keep = 1 - rate * s.weight_decay,
              .root2 = std::sqrt(correction2),
              .epsilon = s.epsilon,
              .decayed = 0},
             update_draws);
    });
    if (unit.cut()) ranks.gather_parts(unit.trained_flat(), unit.cuts());
    units_[u]->settle();
  }
  return norm;
}

bool AdamW::cut() const {
  return std::ranges::any_of(units_, [](const auto* unit) { return unit->cut(); });
}

Moments AdamW::whole_moments(size_t unit, const Device& where) const {
  const int64_t bytes = Moments::bytes_of(*units_[unit], settings_.moments, Moments::Extent::whole);
  const MemoryScope scope(MemoryTag::moments);
  return {*units_[unit], settings_.moments, where.empty({bytes}, at::kByte), kernels_, Moments::Extent::whole};
}

const Device& AdamW::moment_memory() const { return settings_.offload ? offload_memory(device_) : device_; }

void AdamW::read_moments(size_t unit, Communicator& ranks, const PlacedRows& f) const {
  if (!units_[unit]->cut()) return moments_[unit].read(f);
  Moments whole = whole_moments(unit, moment_memory());
  whole.gather(moments_[unit], ranks);
  whole.read(f);
}

void AdamW::write_moments(size_t unit, const PlacedRows& f) {
  if (!units_[unit]->cut()) return moments_[unit].write(f);
  Moments whole = whole_moments(unit, moment_memory());
  whole.write(f);
  moments_[unit].take(whole);
}

void AdamW::shapes_of_moments(size_t unit, const PlacedRows& f) const { whole_moments(unit, Device::meta()).read(f); }

void AdamW::update(const ParamStorage& unit, int64_t begin, const at::Tensor& mean, const at::Tensor& square,
                   ops::AdamWNumbers numbers, const Philox& draws) {
  const bool rounds = narrow(unit), apart = settings_.offload;
  // Where the moments are, gradient and weight may be too.
  const bool bring_gradient = apart && !unit.grad_elsewhere(), bring_weight = rounds || (apart && !unit.streamed());
  const auto crosses = [&](const at::Tensor& what, const auto& copy) {
    apart ? traffic_.count(int64_t(what.nbytes()), copy) : copy();
  };
  const int64_t all = mean.numel(), step = apart || rounds ? std::min(all, kStaged) : all;
  for (int64_t first = 0; first < all; first += step) {
    const int64_t count = std::min(step, all - first), at = begin + first;
    const at::Tensor gradient = unit.grad(at, count), weight = unit.trained_flat().narrow(0, at, count);
    const at::Tensor m = mean.narrow(0, first, count), v = square.narrow(0, first, count);
    numbers.decayed = std::clamp<int64_t>(unit.trained_decayed() - at, 0, count);
    const at::Tensor g = bring_gradient ? staged_gradient_.narrow(0, 0, count) : gradient;
    const at::Tensor w = bring_weight ? staged_weight_.narrow(0, 0, count) : weight;
    if (bring_gradient) crosses(gradient, [&] { g.copy_(gradient); });
    if (bring_weight) crosses(weight, [&] { w.copy_(weight); });
    update_(g, w, m, v, numbers);
    if (!bring_weight) continue;
    const at::Tensor rounded = !rounds ? w : apart ? staged_rounded_.narrow(0, 0, count) : weight;
    if (rounds) kernels_.round(w, rounded, at, {draws, 0});
    if (apart) crosses(weight, [&] { weight.copy_(rounded); });
  }
}

}  // namespace dsengine
