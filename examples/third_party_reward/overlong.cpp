// A reward model's score less the soft overlong punishment of DAPO (Yu et al. 2025, equation 13), against answers that
// ramble on: nothing up to max_length - cache tokens, then up in a line to the whole penalty at max_length, and that
// beyond. An answer that was cut off has the length of the limit: set max_length to rollout.max_response_length.
#include <dsengine/reward.hpp>

#include <algorithm>

struct Overlong {
  static constexpr const char* summary = "a reward model's score less a penalty near the length limit (DAPO)";
  static constexpr bool needs_model = true;  // the engine runs it first and hands over model_score
  int64_t max_length, cache;
  double penalty;

  explicit Overlong(dse::Options& o)
      : max_length(o.integer("max_length", 128, "tokens at which the penalty is whole", {1, 1e9})),
        cache(o.integer("cache", 32, "tokens before max_length over which it grows", {1, 1e9})),
        penalty(o.real("penalty", 1.0, "the whole penalty, in deviations of the model's scores", {0, dse::infinity})) {
    if (cache > max_length) throw dse::Failure("cache should be at most max_length", DSE_BAD_OPTION);
  }

  float score(const dse::Answer& a) const {
    const double over = double(a.token_count - (max_length - cache)) / double(cache);
    return float((a.model_score - a.model_mean) / std::max(a.model_sd, 1e-6) - penalty * std::clamp(over, 0.0, 1.0));
  }
};
DSE_REWARD("overlong", Overlong)
