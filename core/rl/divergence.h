// How far policies are from each other on the answers of an experience, from its columns alone.
//
//   add_rollout_difference(experience, means);       // generation and training on the same weights: about 0
//   add_kl(experience, means);                       // from the reference
//   double kl = kl_from_sampler(experience);         // of the present policy from the one that sampled
//
// Estimators: k1 = log p - log q, k3 = q/p - 1 + log p - log q (Schulman 2020, "Approximating KL divergence").
#pragma once
#include "rl/experience.h"
#include "rl/metric_means.h"

namespace dsengine {

// Sum of k3 over the loss tokens, p now and q the sampling policy; 0 where one of them is no column.
double kl_from_sampler(const Experience& experience);

// "kl" and "kl_k3": means over rows of the sum over an answer's tokens of k1 and k3, p that sampled and q the
// reference.
void add_kl(const Experience& experience, MetricSink& means);

// "rollout_logp_difference_mean" and "…_max": |rollout - training| a token, in nats, of logp as the rollout told it and
// as it is in its column. Warns where the mean is too large.
void add_rollout_difference(const Experience& experience, MetricSink& means);

}  // namespace dsengine
