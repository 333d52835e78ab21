#include "rl/stage_checks.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include "base/check.h"
#include "rl/fingerprint.h"
#include "rl/learner.h"

namespace dsengine {

Json stage_fingerprints(const StageConfig& stage, const StageInputs& inputs, const StageData& data, const Roles& roles,
                        const PluginRegistry& registry) {
  Json all = inputs.fingerprints;
  all["records"] = records_fingerprint(data.records, stage.data.sources);
  if (data.heldout.size() > 0)
    all["held-out records"] =
        records_fingerprint(data.heldout, stage.data.heldout.empty() ? stage.data.sources : stage.data.heldout);
  if (data.texts.size() > 0) all["ptx texts"] = records_fingerprint(data.texts, stage.ptx.sources);
  roles.each([&](const RoleEntry&, const Role& role) {
    const Item& item = registry.find_model(role.model.graph().architecture);
    all["plugin " + item.name] = plugin_fingerprint(item);
  });
  if (!stage.rollout.replay.empty()) all["replayed rollouts"] = folder_fingerprint(stage.rollout.replay);
  return all;
}

Json environment_of(const Kernels& kernels, const Communicator& ranks, at::ScalarType dtype) {
  Json environment{{"threads", at::get_num_threads()},
                   {"cpu", at::get_cpu_capability()},
                   {"world_size", ranks.size()},
                   {"kernels", kernels.description()}};
  if (kernels.device().is_apart()) environment["device"] = kernels.device().where().str();
  if (dtype == at::kBFloat16) environment["dtype"] = "bf16";
  return environment;
}

void warn_of_environment(const Json& before, const Json& now) {
  Json all = before;
  all.update(now);
  for (const auto& [key, _] : all.items())
    if (before.value(key, Json()) != now.value(key, Json()))
      spdlog::warn("resume {}={} before={} note=\"the continuation will not be equal bit for bit\"", key,
                   now.value(key, Json()).dump(), before.value(key, Json()).dump());
}

void check_length(const StageConfig& stage, const StageDirectory& directory, const StageState& state,
                  const StepPlan& plan, const StepPlan& before, const Roles& roles) {
  DSE_CHECK_USER(state.step <= plan.steps(),
                 "stage '{}' has {} steps already, its settings ask for {}: delete {} to train it anew", stage.name,
                 state.step, plan.steps(), directory.path().string());
  if (state.max_steps == stage.max_steps && state.epochs == stage.epochs) return;
  const auto differ = [&](const char* how) {
    directory.changed(fmt::format("the first {} steps of stage '{}' {} over {} steps, now it has {}", state.step,
                                  stage.name, how, before.steps(), plan.steps()));
  };
  bool other_rates = false;
  for (int64_t s = 0; s < state.step; ++s) {
    const auto was = before[s], is = plan[s];
    if (was.first != is.first || was.count != is.count) return differ("took other records, as epochs cut them,");
    roles.each_trained([&](const RoleEntry&, const Role& role) {
      other_rates |=
          learning_rate_at(role.settings, s, before.steps()) != learning_rate_at(role.settings, s, plan.steps());
    });
  }
  if (other_rates) return differ("followed a learning rate's schedule (all but \"constant\" depend on the length)");
  spdlog::info("stage name={} steps={} before={} note=\"goes on as if it had been so from the start\"", stage.name,
               plan.steps(), before.steps());
}

}  // namespace dsengine
