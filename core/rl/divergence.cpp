#include "rl/divergence.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

namespace dsengine {
namespace {

constexpr double kLogProbAlarm = 0.02;  // nats a token, mean of |rollout - training|

}  // namespace

double kl_from_sampler(const Experience& e) {
  double sum = 0;
  if (e.logp.empty() || e.old_logp.empty()) return 0;
  for (size_t t = 0; t < e.logp.size(); ++t) {
    const double d = double(e.logp[t]) - e.old_logp[t];
    sum += e.mask[t] * (std::expm1(d) - d);
  }
  return sum;
}

void add_kl(const Experience& e, MetricSink& means) {
  for (size_t r = 0; r < e.rows.size(); ++r) {
    double k1 = 0, k3 = 0;
    for (int64_t t = e.offsets[r]; t < e.offsets[r + 1]; ++t) {
      const double d = double(e.old_logp[size_t(t)]) - e.ref_logp[size_t(t)];
      k1 += d, k3 += std::expm1(-d) + d;
    }
    means.add("kl", k1, 1), means.add("kl_k3", k3, 1);
  }
}

void add_rollout_difference(const Experience& e, MetricSink& means) {
  double sum = 0, peak = 0;
  for (size_t r = 0; r < e.rows.size(); ++r)
    for (size_t t = 0; t < e.rows[r]->rollout_logp.size(); ++t) {
      const double d = std::abs(double(e.rows[r]->rollout_logp[t]) - e.logp[size_t(e.offsets[r]) + t]);
      sum += d, peak = std::max(peak, d);
    }
  const double mean = sum / double(std::max<int64_t>(1, e.token_count()));
  if (mean > kLogProbAlarm)
    spdlog::warn(
        "rollout_logp_difference_mean={} note=\"generation and training disagree on the probabilities of "
        "the same tokens: a kernel, or the sampling settings, may be at fault\"",
        mean);
  means.add("rollout_logp_difference_mean", mean, 1);
  means.add("rollout_logp_difference_max", peak, 1);
}

}  // namespace dsengine
