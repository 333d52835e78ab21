// The records of a stage: what it trains on, what it is evaluated on, and the texts that ptx mixes in.
//
//   StageData data = StageData::load(stage, needs.source, registry, text, run.seed);
//   data.check_fit(stage, needs.source, model.graph(), text, tokenizer_folder);
#pragma once
#include <filesystem>

#include "model/graph.h"
#include "rl/examples.h"
#include "rl/learner.h"

namespace dsengine {

struct StageData {
  ExampleSet records, heldout, texts;  // heldout, texts: may be empty

  // source: DSE_SOURCE_…
  static StageData load(const StageConfig& stage, uint32_t source, const PluginRegistry& registry,
                        const TextModel& text, uint64_t seed);
  // The records fit the model: what would otherwise fail at whatever step meets it. tokenizer: its folder, for
  // messages.
  void check_fit(const StageConfig& stage, uint32_t source, const ModelGraph& graph, const TextModel& text,
                 const std::filesystem::path& tokenizer) const;
  // What a critic is asked, with an answer, fits it.
  void check_critic(const StageConfig& stage, const ModelGraph& critic) const;
};

// The texts of a stage's mixture, and their turn: item n of update u is the same whenever asked. Borrows the texts.
TextMixture mixture_of(const StageConfig& stage, const ExampleSet& texts, uint64_t seed, uint64_t stage_key);

}  // namespace dsengine
