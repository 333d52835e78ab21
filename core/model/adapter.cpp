#include "model/adapter.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/check.h"
#include "base/philox.h"
#include "memory/ledger.h"
#include "model/autograd/autograd.h"
#include "ops/wide.h"

namespace dsengine {

using at::Tensor;

namespace {

// A linear's weight, by what it is in its model.
bool is_linear(const ParamSpec& spec) {
  return !spec.is_bias() && spec.role >= ParamRole::q && spec.role <= ParamRole::linear;
}

std::vector<std::string> linear_roles() {
  std::vector<std::string> names;
  for (auto role = int(ParamRole::q); role <= int(ParamRole::linear); ++role) names.push_back(name_of(ParamRole(role)));
  return names;
}

Adapter::Choice choice_of(const AdapterSettings& settings) {
  const auto known = linear_roles();
  for (const auto& target : settings.targets)
    DSE_CHECK_USER(target == "all" || std::count(known.begin(), known.end(), target),
                   "lora.targets: '{}' is no target: all, {}", target, fmt::join(known, ", "));
  return [settings](const ParamSpec& weight) -> std::optional<LowRank> {
    const auto is_target = [&](const std::string& name) {
      return std::count(settings.targets.begin(), settings.targets.end(), name) > 0;
    };
    if (is_target("all") || is_target(name_of(weight.role))) return LowRank{settings.rank, settings.alpha};
    return std::nullopt;
  };
}

}  // namespace

std::string module_of(const ParamSpec& weight) {
  return weight.tensor.ends_with(".weight") ? weight.tensor.substr(0, weight.tensor.size() - 7) : weight.tensor;
}

Adapter::Adapter(const ModelGraph& graph, const AdapterSettings& settings, const Kernels& kernels, at::ScalarType dtype)
    : Adapter(graph, settings, kernels, dtype, choice_of(settings)) {}

void Adapter::Target::bind(const Kernels& kernels, at::ScalarType dtype, const std::vector<ParamBlock>& blocks) {
  const auto linear = [&](size_t block) {
    return ops::Linear(kernels, dtype, blocks[block].row_numel(), blocks[block].rows());
  };
  down = linear(a_block);
  for (auto& pair : pairs) pair.up = linear(pair.b_block);
}

Adapter::Adapter(const ModelGraph& graph, const AdapterSettings& settings, const Kernels& kernels, at::ScalarType dtype,
                 const Choice& choice)
    : settings_(settings), sections_(graph.sections.size()) {
  bool any = false;
  for (size_t s = 0; s < sections_.size(); ++s) {
    const Section& section = graph.sections[s];
    std::vector<ParamBlock> blocks;
    for (size_t block = 0; block < section.blocks.size(); ++block) {
      const auto& parts = section.blocks[block].parts;
      if (!is_linear(parts[0])) continue;
      Target target;
      add_pairs(target, blocks, parts, choice);
      if (target.pairs.empty()) continue;
      target.bind(kernels, dtype, blocks);
      sections_[s].targets.emplace(int(block), std::move(target));
    }
    if (blocks.empty()) continue;
    any = true;
    sections_[s].unit =
        std::make_unique<ParamStorage>("adapter." + section.name, std::move(blocks), kernels.device(), dtype);
    if (ops::wide(dtype) == dtype) continue;
    // They are little, and what a stage made of them goes on in the next.
    const MemoryScope scope(MemoryTag::weights);
    ParamStorage& unit = *sections_[s].unit;
    unit.widen(0, kernels.device().empty({unit.layout().numel()}, ops::wide(dtype)).zero_());
  }
  DSE_CHECK_USER(any, "lora.targets: the model has no linear in the roles {}", fmt::join(settings.targets, ", "));
}

// The pairs of one block's linears: their A as one block of the unit, and a B block for each.
void Adapter::add_pairs(Target& target, std::vector<ParamBlock>& blocks, const std::vector<ParamSpec>& parts,
                        const Choice& choice) {
  target.a_block = blocks.size();
  ParamBlock a;
  std::vector<ParamBlock> bs;
  for (size_t p = 0, end; p < parts.size(); p = end) {
    const std::string module = module_of(parts[p]);
    const auto low = choice(parts[p]);
    ParamBlock b;
    for (end = p; end < parts.size() && parts[end].tensor == parts[p].tensor; ++end) {
      DSE_CHECK_USER(choice(parts[end]) == low, "lora.targets: {} and {} are one tensor here, {}: name both or neither",
                     name_of(parts[p].role), name_of(parts[end].role), parts[p].tensor);
      ParamSpec spec = parts[end];  // its rows are the weight's
      spec.tensor = module + ".lora_B.weight", spec.init = Init::zeros, spec.transposed = false;
      spec.role = ParamRole::adapter;
      if (low) spec.shape = {parts[end].shape[0], low->rank};
      b.parts.push_back(std::move(spec));
      target.widths.push_back(parts[end].shape[0]);
    }
    if (!low) {
      other_modules_.push_back(module);
      continue;
    }
    modules_.emplace_back(module, *low);
    target.pairs.push_back({p, end - p, *low, a.parts.empty() ? 0 : a.rows(), target.a_block + 1 + bs.size()});
    a.parts.push_back(
        {.tensor = module + ".lora_A.weight", .shape = {low->rank, parts[p].shape[1]}, .role = ParamRole::adapter});
    bs.push_back(std::move(b));
  }
  if (bs.empty()) return;
  blocks.push_back(std::move(a));
  for (auto& b : bs) blocks.push_back(std::move(b));
}

Adapter::Adapter(const Adapter& other)
    : settings_(other.settings_),
      sections_(other.sections_.size()),
      modules_(other.modules_),
      other_modules_(other.other_modules_) {
  at::NoGradGuard no_grad;
  for (size_t s = 0; s < sections_.size(); ++s) {
    const auto& from = other.sections_[s];
    sections_[s].targets = from.targets;
    if (!from.unit) continue;
    const MemoryScope scope(MemoryTag::weights);
    sections_[s].unit = std::make_unique<ParamStorage>(from.unit->layout(), from.unit->flat().clone());
    if (from.unit->wide()) sections_[s].unit->widen(0, from.unit->wide_values().clone());
  }
}

double Adapter::scale(const LowRank& pair) const {
  const double rank = double(pair.rank);
  return pair.alpha / (settings_.rslora ? std::sqrt(rank) : rank);
}

void Adapter::initialize(uint64_t seed) {
  at::NoGradGuard no_grad;
  if (units().front()->flat().is_meta()) return;
  for (auto* unit : units())
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      for (size_t p = 0; p < unit->blocks()[b].parts.size(); ++p) {
        const ParamSpec& spec = unit->blocks()[b].parts[p];
        Tensor to = unit->kept_part(b, p);
        to.zero_();
        if (spec.init == Init::zeros) continue;
        // Uniform within ±1/sqrt(in): PEFT's kaiming_uniform_(a = sqrt(5)). Keyed by name.
        const double bound = 1 / std::sqrt(double(spec.shape[1]));
        const Philox draws(seed, Purpose::init, name_hash(spec.tensor), 0);
        Tensor values = Device::host().empty(spec.shape, at::kFloat);
        float* out = values.mutable_data_ptr<float>();
        for (int64_t i = 0; i < values.numel(); ++i) out[i] = float(bound * (2 * draws.uniform(uint64_t(i)) - 1));
        to.copy_(values);
      }
  for (auto* unit : units()) unit->settle();
}

bool Adapter::Target::row_invariant() const {
  return down->row_invariant() && std::ranges::all_of(pairs, [](const Pair& p) { return p.up->row_invariant(); });
}
bool Adapter::row_invariant() const {
  return std::ranges::all_of(sections_, [](const SectionPairs& section) {
    return std::ranges::all_of(section.targets, [](const auto& target) { return target.second.row_invariant(); });
  });
}

Tensor Adapter::add(size_t section, int block, const Tensor& x, const Tensor& y) const {
  const auto& pairs = sections_[section];
  const auto found = pairs.targets.find(block);
  if (found == pairs.targets.end()) return y;
  const Target& target = found->second;
  const Tensor low = autograd::linear(*target.down, x, Parameter(*pairs.unit, target.a_block), {});
  std::vector<Tensor> shares;
  auto next = target.pairs.begin();
  for (size_t p = 0; p < target.widths.size();) {
    if (next == target.pairs.end() || next->part != p) {
      shares.push_back(at::zeros({x.size(0), target.widths[p++]}, x.options()));
      continue;
    }
    const Tensor own = (low.narrow(1, next->first_row, next->low.rank) * scale(next->low)).contiguous();
    shares.push_back(autograd::linear(*next->up, own, Parameter(*pairs.unit, next->b_block), {}));
    p += (next++)->parts;
  }
  return y + (shares.size() == 1 ? shares[0] : at::cat(shares, 1));
}

Tensor Adapter::delta(size_t section, size_t block, size_t part) const {
  const auto& pairs = sections_[section];
  const auto found = pairs.targets.find(int(block));
  if (found == pairs.targets.end()) return {};
  const Target& target = found->second;
  for (size_t i = 0; i < target.pairs.size(); ++i) {
    const Pair& pair = target.pairs[i];
    if (part < pair.part || part >= pair.part + pair.parts) continue;
    const Tensor a = pairs.unit->kept_part(target.a_block, i);
    const Tensor b = pairs.unit->kept_part(pair.b_block, part - pair.part);
    return b.to(at::kDouble).mm(a.to(at::kDouble)).mul_(scale(pair.low)).to(a.scalar_type());
  }
  return {};
}

std::vector<ParamStorage*> Adapter::units() {
  std::vector<ParamStorage*> result;
  for (auto& section : sections_)
    if (section.unit) result.push_back(section.unit.get());
  return result;
}

std::vector<const ParamStorage*> Adapter::units() const {
  std::vector<const ParamStorage*> result;
  for (const auto& section : sections_)
    if (section.unit) result.push_back(section.unit.get());
  return result;
}

std::vector<bool> blocks_of_kinds(const Section& section, const std::vector<std::string>& kinds) {
  const auto wants = [&](const char* kind) { return std::count(kinds.begin(), kinds.end(), kind) > 0; };
  std::vector<bool> which;
  for (const auto& block : section.blocks) {
    const ParamSpec& spec = block.parts[0];
    which.push_back((spec.role == ParamRole::norm && wants("norms")) ||
                    ((spec.role == ParamRole::embedding || spec.role == ParamRole::positions) && wants("embeddings")) ||
                    (spec.is_bias() && wants("biases")));
  }
  return which;
}

}  // namespace dsengine
