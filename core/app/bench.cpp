#include "app/bench.h"

#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <tuple>

#include "app/json_lines.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "files/hf_directory.h"
#include "memory/ledger.h"
#include "run/config.h"
#include "run/config_reader.h"

namespace dsengine {

namespace {

// From here on the process's peak is that of what follows, not of the buffers that measured the machine. Where Linux
// does not allow it, the peak has them.
void forget_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

double own_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Numbers to six digits, which is more than a clock says.
void shorten(Json& json) {
  if (json.is_number_float() && std::isfinite(json.get<double>()))
    json = std::stod(fmt::format("{:.6g}", json.get<double>()));
  if (json.is_structured())
    for (auto& part : json) shorten(part);
}

}  // namespace

void add_repeat_options(CLI::App& app, BenchOptions& options) {
  add_threads_option(app, options.threads);
  app.add_option("--repeats", options.repeats, "measured, after one that warms up")->check(side_by_side());
}

void add_bench_options(CLI::App& app, BenchOptions& options) {
  app.add_option("--model", options.model, "Hugging Face directory")->required();
  app.add_flag("--random", options.random, "config.json alone is read, and weights are drawn");
  app.add_option("--batch", options.batch, "sequences")->check(side_by_side());
  app.add_option("--dtype", options.dtype, "what is computed in")->check(CLI::IsMember({"fp32", "bf16"}));
  add_device_option(app, options.device);
  add_repeat_options(app, options);
}

void add_weights_option(CLI::App& app, std::string& weights) {
  const auto& names = kChoices<WeightFormat>;
  app.add_option("--weights", weights, "what answers are generated from, as rollout.weights says")
      ->check(CLI::IsMember(std::vector<std::string>(names.begin(), names.end())));
}

void add_set_option(CLI::App& app, BenchOptions& options) {
  app.add_option("--set", options.sets, "key=value of the stage, as a configuration has it; repeatable");
}

StageConfig with_sets(const StageConfig& stage, const BenchOptions& options) {
  StageConfig set = stage;
  set_keys(set, options.sets);
  const auto of_plugin = [](const std::string& one) { return one.starts_with("plugin.") || one.starts_with("stage."); };
  const auto told = [](const StageConfig& s) {
    const auto& r = s.rollout;
    return std::tuple(s.name, s.algorithm, s.mini_batch_size, s.micro_batch_size, s.ppo_epochs, r.batch_size,
                      r.samples_per_prompt, r.max_response_length, r.temperature, r.weights);
  };
  DSE_CHECK_USER(
      told(set) == told(stage) && std::ranges::none_of(options.sets, of_plugin),
      "--set: sizes, lengths, epochs, temperature, weights and the algorithm's numbers have options of their "
      "own (see --help)");
  return set;
}

double Elsewhere::busy_seconds() {
  std::ifstream file("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, interrupts = 0, soft = 0, stolen = 0;
  file >> name >> user >> nice >> system >> idle >> wait >> interrupts >> soft >> stolen;
  const double ticks = user + nice + system + interrupts + soft + stolen;
  return file ? ticks / double(sysconf(_SC_CLK_TCK)) - own_seconds() : 0;
}

double Elsewhere::cores() {
  const double busy = std::max(0.0, busy_seconds() - busy_);
  return std::round(busy / std::max(1e-9, lap_()) * 100) / 100;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Json spread(const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return {{"min", *least}, {"median", median(values)}, {"max", *most}, {"n", values.size()}};
}

Bench::Bench(const char* part, const BenchOptions& options, const Common& common) {
  line_["command"] = std::string("bench ") + part;
  if (!options.model.empty()) {
    check_model_directory(options.model, "--model");
    const auto folder = std::filesystem::weakly_canonical(options.model);
    line_["model"] = folder.filename().string();
    line_["batch"] = options.batch;
  }
  line_["dtype"] = options.dtype;
  set_up_threads(options.threads);
  line_["threads"] = at::get_num_threads();
  line_["device"] = options.device;
  session_ = std::make_unique<const Session>(common.plugin_path, std::vector<PluginFile>{}, options.device);
  dtype_ = options.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  machine_ = measure_machine(session_->kernels(), dtype_);
  forget_peak();
}

int Bench::print(const Json& measured) const {
  Json line = line_;
  line.update(measured);
  line["peak_memory_mb"] = peak_resident_mb();
  line["read_gb_per_s"] = machine_.read_gb_per_s;
  line["product_gflops"] = machine_.product_gflops;
  DSE_CHECK_USER(!has_non_finite(line), "{}", kNotFinite);
  shorten(line);
  std::cout << json_line(line) << std::endl;
  return 0;
}

}  // namespace dsengine
