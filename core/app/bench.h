// What the parts of `dsengine bench` share: options, the machine's own rates, repeats with their spread, and the line
// of JSON that each ends with.
//
//   Bench bench("generate", options, common);             // threads, plugins, the machine's rates; peaks begin anew
//   const auto runs = repeated(options.repeats, [&] { return answer(scheduler, requests); });
//   return bench.print({{"tokens_per_s", median(runs, rate)}, {"spread", spread(runs, rate)}});
//
// Inputs are the same in every run and on every machine (bench_inputs.h). A part does what the command or stage of its
// name does, by the same classes.
#pragma once
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "app/bench_machine.h"
#include "app/command.h"
#include "base/json.h"
#include "engine/session.h"
#include "run/config.h"

namespace dsengine {

Body define_bench_generate(CLI::App& app, Common& common);
Body define_bench_train(CLI::App& app, Common& common);
Body define_bench_ppo(CLI::App& app, Common& common);
Body define_bench_grpo(CLI::App& app, Common& common);
Body define_bench_ops(CLI::App& app, Common& common);

struct BenchOptions {
  std::string model, dtype = "fp32", device = "cpu";  // model "": the part has none
  int64_t batch = 1, repeats = 3, threads = 0;
  bool random = false;
  std::vector<std::string> sets;  // of a stage's keys
};
// --model, --random, --batch, --dtype, --device, and the two below.
void add_bench_options(CLI::App& app, BenchOptions& options);
void add_weights_option(CLI::App& app, std::string& weights);
// --set, of a part that is a stage.
void add_set_option(CLI::App& app, BenchOptions& options);
// The stage with what --set says. UserError where a key has an option of its own.
StageConfig with_sets(const StageConfig& stage, const BenchOptions& options);
// --threads and --repeats.
void add_repeat_options(CLI::App& app, BenchOptions& options);

// Seconds since it was made, or last asked.
class Lap {
 public:
  double operator()() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(since_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

// How many processors others have kept busy since it was made, as far as Linux tells; 0 where it does not.
class Elsewhere {
 public:
  Elsewhere() : busy_(busy_seconds()) {}
  double cores();

 private:
  static double busy_seconds();  // of all of the machine, less this process's
  double busy_;
  Lap lap_;
};

template <class Run>
struct Repeats {
  Run warm_up;
  std::vector<Run> runs;
  std::vector<double> other_cores;  // a run each
};

template <class F>
auto repeated(int64_t count, const F& run) {
  Repeats<decltype(run())> repeats{run(), {}, {}};
  for (int64_t i = 0; i < count; ++i) {
    Elsewhere elsewhere;
    repeats.runs.push_back(run());
    repeats.other_cores.push_back(elsewhere.cores());
  }
  return repeats;
}

// Of numbers, at least one.
double median(std::vector<double> values);
Json spread(const std::vector<double>& values);  // {min, median, max, n}

template <class Run, class F>
std::vector<double> each(const Repeats<Run>& repeats, const F& number) {
  std::vector<double> values;
  for (const auto& run : repeats.runs) values.push_back(number(run));
  return values;
}

class Bench {
 public:
  // UserError where the model's folder is none.
  Bench(const char* part, const BenchOptions& options, const Common& common);

  const Session& session() const { return *session_; }
  at::ScalarType dtype() const { return dtype_; }
  const MachineRates& machine() const { return machine_; }
  // One line: command, model, batch, dtype, threads, then `measured`, then the process's peak and the machine's rates.
  // Returns the exit status.
  int print(const Json& measured) const;

 private:
  Json line_;
  std::unique_ptr<const Session> session_;
  at::ScalarType dtype_;
  MachineRates machine_;
};

}  // namespace dsengine
