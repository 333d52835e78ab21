// What a rollout told beside training forwards, bit for bit.
#pragma once
#include <gtest/gtest.h>

#include "generate/scheduler.h"
#include "model/golden_models.h"

namespace dsengine {

// Of answers, three a request: the log-probabilities have the bits of training forwards of `together` rows each.
inline void expect_training_bits(const Model& model, const std::vector<GenerationRequest>& requests,
                                 const std::vector<Generation>& answers, size_t together) {
  for (size_t from = 0; from < answers.size(); from += together) {
    std::vector<std::vector<int32_t>> sequences;
    std::vector<int64_t> rows, targets;
    std::vector<float> told;
    int64_t begin = 0;
    for (size_t i = from; i < std::min(from + together, answers.size()); ++i) {
      const auto& prompt = requests[i / 3].prompt;
      auto& sequence = sequences.emplace_back(prompt);
      sequence.insert(sequence.end(), answers[i].tokens.begin(), answers[i].tokens.end());
      for (size_t t = 0; t < answers[i].tokens.size(); ++t) rows.push_back(begin + int64_t(prompt.size() + t) - 1);
      targets.insert(targets.end(), answers[i].tokens.begin(), answers[i].tokens.end());
      told.insert(told.end(), answers[i].logp.begin(), answers[i].logp.end());
      begin += int64_t(sequence.size());
    }
    const Device& host = Device::host();
    const at::Tensor logp = model
                                .log_prob(model.hidden(pack_all(sequences)), host.upload(rows), host.upload(targets),
                                          requests[0].sampling.temperature, together > 1)
                                .logp;
    EXPECT_TRUE(same_bits(logp, host.upload(told))) << together << " rows from " << from << " on, largest difference "
                                                    << (logp - host.upload(told)).abs().max().item<float>();
  }
}

}  // namespace dsengine
