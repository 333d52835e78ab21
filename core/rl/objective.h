// An algorithm's loss on rows of answers as one number and its slopes by the columns, divided by counts over the whole
// minibatch: what autograd then carries into the models.
//
//   double n = normaliser(minibatch, algorithm.needs());          // before the first micro-batch
//   WeightedLoss part = weighted_loss(algorithm, micro, n, means);  // micro's logp, entropy, value are filled
//   torch::autograd::backward({logp}, {part.d_logp});
//
// So neither the micro-batch size nor the number of ranks changes a loss or gradient beyond rounding.
#pragma once
#include <vector>

#include "comm/communicator.h"
#include "plugin/instance.h"
#include "rl/experience.h"
#include "rl/importance.h"
#include "rl/metric_means.h"

namespace dsengine {

struct WeightedLoss {
  double loss = 0;                                // this part's share of the minibatch's loss
  std::vector<float> d_logp, d_entropy, d_value;  // [T] of that share; empty where the column is not asked for
};

// What the sum of the units' losses is divided by; UserError where nothing is left to train on.
double normaliser(const Experience& minibatch, const dse_needs& needs);

// UserError where the loss is not finite. correction: of answers that another policy gave, by old_logp and
// rollout_logp, which are filled then; it multiplies losses and slopes, and leaves the normaliser as it is. ranks: they
// run their own micro-batches at the same time, and the algorithm may ask for sums over all of them; null: the rows are
// all there are.
WeightedLoss weighted_loss(AlgorithmInstance& algorithm, Experience& micro, double normaliser, MetricSink& means,
                           Communicator* ranks = nullptr, const ImportanceCorrection& correction = {});

// The algorithm's prepare, on all rows of a rollout or minibatch. Every rank has them all and comes to the same
// columns, metrics and state: its sums are whole.
void prepare(AlgorithmInstance& algorithm, Experience& experience, MetricSink& means);

}  // namespace dsengine
