// Records become token sequences: what to imitate, what to compare, what to answer.
//
//   const Part part = Part::of(stage.data, DSE_SOURCE_RECORDS, run.seed);
//   ExampleSet data = ExampleSet::load(stage.data.sources, registry, text, stage.data, DSE_SOURCE_RECORDS, part);
//   const Example& e = data.example(i);               // prompt, answer, mask
//   auto order = epoch_order(data, seed, stage_key, epoch);
//
// Everything is tokenized once, when loaded. A prompt that is too long keeps its first token and its end; a record that
// is too long is dropped, or loses the end of its answer. Pairs of equal answers have nothing to compare, and records
// whose other fields hold "label": false are not imitated. All of it is counted in the log.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plugin/registry.h"
#include "rl/example.h"
#include "run/config.h"
#include "text/text_model.h"

namespace dsengine {

// The part of a split that a stage uses: an interval of [0, 1) in which each record has a place by its content and the
// run's seed, the same whatever a stage makes of it. Records with the same opening are in the same part.
struct Part {
  uint64_t seed = 0;
  double begin = 0, end = 1;
  int64_t number = 0;  // from 1; 0: there is no split

  // UserError where the split has no such part. source: DSE_SOURCE_…, which chooses it where data.part is 0.
  static Part of(const DataConfig& config, uint32_t source, uint64_t seed);
  bool holds(uint64_t content_hash) const;
};

class ExampleSet {
 public:
  // source: DSE_SOURCE_…: what is made of each record.
  static ExampleSet load(const std::vector<DataSource>& sources, const PluginRegistry& registry, const TextModel& text,
                         const DataConfig& config, uint32_t source, const Part& part = {});

  size_t size() const { return examples_.size(); }
  const Example& operator[](size_t i) const { return examples_[i]; }
  // How often, on average, example i comes in an epoch: its source's weight.
  double copies(size_t i) const { return copies_[i]; }
  // Examples in an epoch, on average.
  double epoch_size() const;
  // Gives each example its prompt in the critic's words, to which `where` refers in errors. Of rollouts.
  void ask_critic(const TextModel& critic, const std::string& where);
  // Moves a share of the examples, chosen by their content, to a set of their own.
  ExampleSet split_off(double share);

 private:
  void add(const DataSource& from, const PluginRegistry& registry, const TextModel& text, const DataConfig& config,
           uint32_t source, const Part& part);

  std::vector<Example> examples_;
  std::vector<double> copies_;
};

// The examples of one epoch in a shuffled order that depends on the seed, the stage and the epoch alone.
std::vector<uint32_t> epoch_order(const ExampleSet& set, uint64_t seed, uint64_t stage_key, uint64_t epoch);

}  // namespace dsengine
