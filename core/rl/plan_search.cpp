#include "rl/plan_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/memory_size.h"

namespace dsengine {

namespace {

struct Saving {
  const char* settings;
  std::function<bool(StageConfig&)> apply;  // false: it is so already
};

bool adapt(LoraConfig& lora) {
  if (lora.rank > 0) return false;
  lora.rank = 16;
  return true;
}

// In the order of what they cost.
const std::vector<Saving>& all_savings() {
  static const std::vector<Saving> all{
      {"rollout.keep_cache = false", [](StageConfig& s) { return std::exchange(s.rollout.keep_cache, false); }},
      {"recompute = true", [](StageConfig& s) { return !std::exchange(s.recompute, true); }},
      {"moments = \"8bit\"",
       [](StageConfig& s) {
         bool less = false;
         for (auto* role : {&s.actor, &s.critic})
           less |= std::exchange(role->optimizer.moments, MomentFormat::bits8) != MomentFormat::bits8;
         return less;
       }},
      {"offload.moments = true", [](StageConfig& s) { return !std::exchange(s.offload.moments, true); }},
      {"offload.gradients = true",
       [](StageConfig& s) { return s.offload.moments && !std::exchange(s.offload.gradients, true); }},
      {"offload.average = true",
       [](StageConfig& s) { return s.has_average() && !std::exchange(s.offload.average, true); }},
      {"offload.frozen = true", [](StageConfig& s) { return !std::exchange(s.offload.frozen, true); }},
      {"offload.weights = true",
       [](StageConfig& s) {
         const bool others = s.offload.gradients && (s.offload.average || !s.has_average());
         const bool wide = s.actor.optimizer.master_weights && s.critic.optimizer.master_weights;
         return others && wide && !std::exchange(s.offload.weights, true);
       }},
      {"lora.rank = 16",
       [](StageConfig& s) {
         const bool actor = adapt(s.actor.lora), critic = adapt(s.critic.lora);
         return actor || critic;
       }},
      {"lora.base = \"nf4\"",
       [](StageConfig& s) {
         bool less = false;
         for (auto* lora : {&s.actor.lora, &s.critic.lora})
           if (lora->rank > 0) less |= std::exchange(lora->base, FrozenFormat::nf4) != FrozenFormat::nf4;
         return less;
       }},
  };
  return all;
}

// None where the stage cannot be so: an adapter on an adapter, half a pair.
std::optional<Variant> variant(InputCheck& check, std::string settings, StageConfig stage) {
  try {
    StagePlan plan = check.plan(stage);
    return Variant{std::move(settings), std::move(stage), std::move(plan)};
  } catch (const UserError&) {
    return std::nullopt;
  }
}

// The largest of 1, 2, 4, … below `most`, or `most` itself, at which the stage fits.
std::optional<Variant> largest(InputCheck& check, const StageConfig& stage, int64_t limit, const char* setting,
                               int64_t most, const std::function<void(StageConfig&, int64_t)>& set) {
  std::optional<Variant> found;
  for (int64_t value = 1;; value = std::min(2 * value, most)) {
    StageConfig with = stage;
    set(with, value);
    auto next = variant(check, fmt::format("{} = {}", setting, value), std::move(with));
    if (next && next->plan.peak() > limit) return found;
    if (next) found = std::move(next);
    if (value >= most) return found;
  }
}

std::string joined(const std::string& a, const std::string& b) { return a.empty() ? b : a + ", " + b; }

}  // namespace

int64_t memory_limit(const RunConfig& run, const Device& device) {
  if (run.memory_limit > 0) return std::max<int64_t>(1, int64_t(run.memory_limit * double(int64_t{1} << 30)));
  if (const auto free = device.free_memory()) return std::max<int64_t>(1, *free);
  return memory_left();
}

std::vector<std::string> plan_lines(const StagePlan& plan) {
  std::vector<std::string> lines;
  for (const auto& phase : plan.phases) {
    if (phase.bytes == 0) continue;
    std::string line =
        fmt::format("plan stage={} phase={} peak=\"{}\"", plan.stage, phase.name, bytes_text(uint64_t(phase.bytes)));
    for (size_t t = 0; t < phase.by_tag.size(); ++t)
      if (phase.by_tag[t] > 0)
        line += fmt::format(" {}=\"{}\"", name_of(MemoryTag(t)), bytes_text(uint64_t(phase.by_tag[t])));
    if (plan.offloaded > 0) line += fmt::format(" offloaded=\"{}\"", bytes_text(uint64_t(plan.offloaded)));
    lines.push_back(line);
  }
  return lines;
}

std::vector<Variant> savings(InputCheck& check, const StageConfig& stage, const StagePlan& plan) {
  std::vector<Variant> variants;
  for (const auto& saving : all_savings()) {
    StageConfig with = stage;
    if (!saving.apply(with)) continue;
    auto v = variant(check, saving.settings, std::move(with));
    if (v && v->plan.peak() < plan.peak()) variants.push_back(std::move(*v));
  }
  return variants;
}

std::optional<Variant> largest_micro_batch(InputCheck& check, const StageConfig& stage, int64_t limit) {
  return largest(check, stage, limit, "micro_batch_size", stage.mini_batch_size,
                 [](StageConfig& s, int64_t rows) { s.micro_batch_size = rows; });
}

std::optional<Variant> way_to_fit(InputCheck& check, const StageConfig& stage, const StagePlan& plan, int64_t limit) {
  Variant best{"", stage, plan};
  const auto fit = [&]() -> std::optional<Variant> {
    if (best.plan.peak() <= limit) return best;
    const std::string& phase = best.plan.largest().name;
    const bool generating = phase == name_of(Phase::generate) || phase == "evaluation";
    auto found = generating ? largest(check, best.stage, limit, "rollout.slots",
                                      stage.rollout.batch_size * stage.rollout.samples_per_prompt,
                                      [](StageConfig& s, int64_t slots) { s.rollout.slots = slots; })
                            : largest_micro_batch(check, best.stage, limit);
    if (found) found->settings = joined(best.settings, found->settings);
    return found;
  };
  if (auto found = fit()) return found;
  for (const auto& saving : all_savings()) {
    StageConfig with = best.stage;
    if (!saving.apply(with)) continue;
    auto next = variant(check, joined(best.settings, saving.settings), std::move(with));
    if (!next || next->plan.peak() >= best.plan.peak()) continue;
    best = std::move(*next);
    if (auto found = fit()) return found;
  }
  return std::nullopt;
}

std::string too_large(const StagePlan& plan, int64_t limit, const std::optional<Variant>& way) {
  const PhasePlan& phase = plan.largest();
  std::string held = tags_text([&](MemoryTag tag) { return phase.of(tag); });
  if (plan.peak() > phase.bytes) held += ", offloaded " + bytes_text(uint64_t(plan.offloaded));
  const std::string line =
      fmt::format("stage '{}' would need {} in phase {} ({}), of {} (memory_limit)", plan.stage,
                  bytes_text(uint64_t(plan.peak())), phase.name, held, bytes_text(uint64_t(limit)));
  return line +
         (way ? fmt::format(": it fits with {} ({})", way->settings, bytes_text(uint64_t(way->plan.peak())))
              : std::string(": no setting that was tried makes it fit; take a smaller model or shorter answers"));
}

}  // namespace dsengine
