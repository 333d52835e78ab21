// dsengine plan: what a run needs before it begins: memory by tag and phase, what would make it fit, seconds and cost.
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <memory>
#include <optional>

#include "app/bench_machine.h"
#include "app/command.h"
#include "app/json_keys.h"
#include "app/run_command.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "device/graphics_card.h"
#include "engine/session.h"
#include "rl/batching.h"
#include "rl/config_checks.h"
#include "rl/input_resolver.h"
#include "rl/plan_search.h"
#include "run/config_reader.h"

namespace dsengine {

namespace {

struct PlanOptions {
  std::string gpu = "cpu";
  std::vector<int64_t> batches;
  int64_t world = 1;
  double price = 0;
  bool json = false;
};

constexpr double kGiB = double(int64_t{1} << 30);
double gib(int64_t bytes) { return double(bytes) / kGiB; }

// Of a card: what a program finds free of its memory, and rates as they are reached, not as they are sold.
struct Card {
  const char* name;
  const char* model;  // a part of its driver's name for it
  double gib;
  MachineRates rates;
  double link;  // GB/s from and to the host
  const char* note = "";
};
constexpr Card kCards[] = {
    {"h200", "H200", 139.8, {4130, 54000, 700000}, 50},
    {"h100", "H100", 79.2, {3000, 54000, 700000}, 50},
    {"a100-80", "A100", 79.1, {1700, 16000, 250000}, 25},
    {"a100-40", "A100", 39.4, {1300, 16000, 250000}, 25},
    {"a6000", "RTX A6000", 47.4, {650, 31000, 120000}, 25},
    {"rtx4090", "RTX 4090", 23.5, {900, 66000, 150000}, 25},
    {"v100-32", "V100", 31.7, {800, 12500}, 12, "a plan only: CUDA 13 has no code for this card"},
};
// Of it, what is no tensor's: the context with the libraries, and the share that lies between tensors.
constexpr double kLibrariesGib = 1.0, kFragmentation = 0.03;

std::vector<std::string> card_names() {
  std::vector<std::string> names{"cpu", "auto"};
  for (const auto& card : kCards) names.emplace_back(card.name);
  return names;
}

// The card of this machine, with the memory that it has: one of a model may have less or more.
std::optional<Card> card_of_machine() {
  const auto found = first_graphics_card();
  if (!found) return std::nullopt;
  const double has = gib(found->bytes);
  const Card* nearest = nullptr;
  for (const auto& card : kCards)
    if (found->name.find(card.model) != std::string::npos &&
        (!nearest || std::abs(card.gib - has) < std::abs(nearest->gib - has)))
      nearest = &card;
  DSE_CHECK_USER(nearest,
                 "--gpu auto: '{}' ({:.1f} GiB) is none of the cards whose rates are known: name the one that "
                 "is most like it ({})",
                 found->name, has, fmt::join(card_names(), ", "));
  Card card = *nearest;
  card.gib = has;
  return card;
}

// None: this machine without a card.
std::optional<Card> card_of(const std::string& name) {
  if (name == "auto") return card_of_machine();
  const auto found = std::ranges::find(kCards, name, &Card::name);
  return found == std::end(kCards) ? std::nullopt : std::optional(*found);
}

// What a stage takes in a step: prompts, or rows of records.
void set_batch(StageConfig& stage, const dse_needs& needs, int64_t batch) {
  (needs.source == DSE_SOURCE_ROLLOUT ? stage.rollout.batch_size : stage.mini_batch_size) = batch;
}

// What a step takes beyond the multiplying and reading of its kernels: additions, copies, what waits for another.
constexpr double kOverhead = 1.25;

class StagePlanner {
 public:
  // card: null for this machine.
  StagePlanner(const RunConfig& config, const Session& session, const StopSignal& stop, const PlanOptions& options,
               const Card* card, const MachineRates& rates)
      : config_(config),
        session_(session),
        options_(options),
        card_(card),
        limit_(card_ && config.memory_limit == 0 ? int64_t((card_->gib - kLibrariesGib) / (1 + kFragmentation) * kGiB)
                                                 : memory_limit(config, session.kernels().device())),
        rates_(rates),
        check_(config, session.registry(), stop, card != nullptr, options.world) {
    if (card_) check_.set_host_apart();
    check_.set_rates(rates_);
  }

  // False: it does not fit.
  bool print(size_t index) {
    const StageConfig& stage = config_.stages[index];
    check_.stage(index, needs_of(session_.registry(), stage), models_.inputs_of(index));
    const StagePlan plan = check_.plan(stage);
    const bool fits = plan.peak() <= limit_;
    Json line{{"stage", plan.stage},
              {"algorithm", plan.algorithm},
              {"fits", fits},
              {"peak_gib", gib(plan.peak())},
              {"peak_phase", plan.largest().name},
              {"memory_limit_gib", gib(limit_)},
              {"state_gib", gib(plan.held)},
              {"offloaded_gib", gib(plan.offloaded)},
              {"device", card_ ? card_->name : "cpu"},
              {"ranks", options_.world},
              {"dtype", check_.dtype() == at::kBFloat16 ? "bf16" : "fp32"},
              {"batch", items_per_step(stage, needs_of(session_.registry(), stage))},
              {"phases", phases_of(plan)},
              {"steps", plan.steps},
              {"seconds_per_step", seconds_of(plan)},
              {"hours", hours_of(plan)}};
    if (card_) {
      line["device_gib"] = card_->gib;
      line["libraries_gib"] = kLibrariesGib;
      line["fragmentation_gib"] = kFragmentation * gib(plan.peak());
      if (*card_->note) line["note"] = card_->note;
    }
    if (options_.price > 0) line["cost"] = hours_of(plan) * options_.price;
    line["savings"] = Json::array();
    for (const auto& v : savings(check_, stage, plan)) line["savings"].push_back(variant(v));
    if (const auto batch = largest_micro_batch(check_, stage, limit_)) line["largest"] = variant(*batch);
    if (!fits) {
      const auto way = way_to_fit(check_, stage, plan, limit_);
      line["fits_with"] = way ? variant(*way) : Json();
    }
    std::cout << (options_.json ? line.dump() + "\n" : text_of(line)) << std::flush;
    return fits;
  }

 private:
  // What is moved goes over the link to the host, where there is one; what is unpacked is written and read once more.
  double seconds_of(const StagePlan& plan) const {
    const double copied = rates_.read_gb_per_s / 2;
    return kOverhead * plan.seconds() + plan.movement.moved / 1e9 / (card_ ? card_->link : copied) +
           plan.movement.unpacked / 1e9 / copied;
  }
  double hours_of(const StagePlan& plan) const { return seconds_of(plan) * double(plan.steps) / 3600; }

  static Json phases_of(const StagePlan& plan) {
    Json phases = Json::object();
    for (const auto& phase : plan.phases) {
      if (phase.bytes == 0) continue;
      Json tags = Json::object();
      for (size_t t = 0; t < phase.by_tag.size(); ++t)
        if (phase.by_tag[t] > 0) tags[name_of(MemoryTag(t))] = gib(phase.by_tag[t]);
      phases[phase.name] = {{"peak_gib", gib(phase.bytes)}, {"gib", tags}, {"seconds", kOverhead * phase.seconds}};
    }
    return phases;
  }

  Json variant(const Variant& v) const {
    return {{"settings", v.settings}, {"peak_gib", gib(v.plan.peak())}, {"seconds_per_step", seconds_of(v.plan)}};
  }

  // A table: a row a tag, a column a phase.
  static std::string text_of(const Json& line) {
    const auto text = [](const Json& name) { return name.get<std::string>(); };
    std::string out =
        fmt::format("stage {}: algorithm {}, {} steps of {}\n\n{:<17}", text(line["stage"]), text(line["algorithm"]),
                    line["steps"].get<int64_t>(), line["batch"].get<int64_t>(), "GiB at the peak");
    const Json& phases = line["phases"];
    for (const auto& [name, _] : phases.items()) out += fmt::format("{:>12}", name);
    out += "\n";
    const auto row = [&](const std::string& name, const auto& value) {
      out += fmt::format("  {:<15}", name);
      for (const auto& [_, phase] : phases.items()) out += fmt::format("{:>12.3f}", value(phase));
      out += "\n";
    };
    for (const char* tag : kChoices<MemoryTag>) {
      const bool any = std::ranges::any_of(phases, [&](const Json& phase) { return phase["gib"].contains(tag); });
      if (any) row(tag, [&](const Json& phase) { return phase["gib"].value(tag, 0.0); });
    }
    row("all", [](const Json& phase) { return phase["peak_gib"].get<double>(); });
    row("seconds", [](const Json& phase) { return phase["seconds"].get<double>(); });
    const auto variant_text = [&](const Json& v) {
      return fmt::format("{} ({:.2f} GiB, {:.2f} s a step)", text(v["settings"]), v["peak_gib"].get<double>(),
                         v["seconds_per_step"].get<double>());
    };
    out += fmt::format("\nneeds {:.2f} GiB, in phase {}, of {:.2f}: {}\n", line["peak_gib"].get<double>(),
                       text(line["peak_phase"]), line["memory_limit_gib"].get<double>(),
                       line["fits"] == true ? "it fits" : "it does not fit");
    if (line["offloaded_gib"] > 0)
      out += fmt::format("{:.2f} GiB of the host's memory{}\n", line["offloaded_gib"].get<double>(),
                         line.contains("device_gib") ? " beside it" : ", counted in");
    if (line.contains("device_gib"))
      out += fmt::format("{}: {:.1f} GiB, of which libraries take {:.1f} and what lies between tensors {:.2f}; {}{}\n",
                         text(line["device"]), line["device_gib"].get<double>(), line["libraries_gib"].get<double>(),
                         line["fragmentation_gib"].get<double>(), text(line["dtype"]),
                         line.contains("note") ? "; " + text(line["note"]) : "");
    if (line.contains("fits_with"))
      out += line["fits_with"].is_null() ? "no setting that was tried makes it fit\n"
                                         : "it fits with " + variant_text(line["fits_with"]) + "\n";
    if (line.contains("largest")) out += "largest micro-batch: " + variant_text(line["largest"]) + "\n";
    for (const auto& saving : line["savings"]) out += "would need less with " + variant_text(saving) + "\n";
    out += fmt::format("at least {:.2f} s a step, {:.2f} hours in all", line["seconds_per_step"].get<double>(),
                       line["hours"].get<double>());
    if (line.contains("cost")) out += fmt::format(", for {:.2f}", line["cost"].get<double>());
    return out + "\n\n";
  }

  const RunConfig& config_;
  const Session& session_;
  const PlanOptions& options_;
  const Card* card_;
  const int64_t limit_;
  const MachineRates rates_;
  const InputResolver models_{config_, session_.registry()};
  InputCheck check_;
};

int plan(const PlanOptions& options, const Common& common) {
  const auto file = common.config.empty() ? built_in_config() : std::filesystem::path(common.config);
  RunConfig config = load_config(file, common.sets);
  DSE_CHECK_USER(!config.stages.empty(), "the configuration has no [[stage]]");
  set_up_threads(config.threads);
  std::vector<std::filesystem::path> path = common.plugin_path;
  path.insert(path.end(), config.plugin_path.begin(), config.plugin_path.end());
  const Session session(path, config.plugins);
  const StopSignal stop;
  const auto card = card_of(options.gpu);
  const MachineRates rates = card ? card->rates : measure_machine(session.kernels());
  bool fits = true;
  for (size_t b = 0; b < std::max<size_t>(1, options.batches.size()); ++b) {
    for (size_t i = 0; i < config.stages.size(); ++i) {
      StageConfig& stage = config.stages[i];
      if (!options.batches.empty()) set_batch(stage, needs_of(session.registry(), stage), options.batches[b]);
      check_stage(config, i, session.registry());
    }
    StagePlanner planner(config, session, stop, options, card ? &*card : nullptr, rates);
    for (size_t i = 0; i < config.stages.size() && !stop.requested(); ++i) fits = planner.print(i) && fits;
  }
  if (stop.requested()) return 128 + stop.signal();
  return fits ? 0 : 1;
}

}  // namespace

Body define_plan(CLI::App& app, Common& common) {
  auto o = std::make_shared<PlanOptions>();
  add_config_options(app, common);
  app.add_option("--gpu", o->gpu, "the card that is planned for; cpu: this machine; auto: its first card, if any")
      ->check(CLI::IsMember(card_names()));
  app.add_option("--batch", o->batches,
                 "a plan for each: prompts a step (rollout.batch_size), or rows of records (mini_batch_size)")
      ->check(side_by_side());
  app.add_option("--world", o->world, "ranks that share the work: what is told is of one of them")
      ->check(count())
      ->capture_default_str();
  app.add_option("--price", o->price, "of an hour of it: the run's cost is told")->check(real(0, 1e9));
  app.add_flag("--json", o->json, "a JSON object a stage, not a table");
  app.footer(kPlanKeys);
  return [o, &common] { return plan(*o, common); };
}

}  // namespace dsengine
