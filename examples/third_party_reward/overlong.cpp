// The soft overlong punishment of DAPO (Yu et al. 2025, equation 13), against answers that ramble on: 0 up to
// max_length - cache tokens, then down in a line to -1 at max_length, and -1 beyond. It stands beside another reward.
// An answer that was cut off has the length of the limit: set max_length to rollout.max_response_length.
#include <dsengine/reward.hpp>

#include <algorithm>

struct Overlong {
  static constexpr const char* summary = "a penalty for answers near the length limit (DAPO)";
  int64_t max_length, cache;

  explicit Overlong(dse::Options& o)
      : max_length(o.integer("max_length", 128, "tokens at which the penalty is whole", {1, 1e9})),
        cache(o.integer("cache", 32, "tokens before max_length over which it grows", {1, 1e9})) {
    if (cache > max_length) throw dse::Failure("cache should be at most max_length", DSE_BAD_OPTION);
  }

  float score(const dse::Answer& a) const {
    const double over = double(a.token_count - (max_length - cache)) / double(cache);
    return -float(std::clamp(over, 0.0, 1.0));
  }
};
DSE_REWARD("overlong", Overlong)
