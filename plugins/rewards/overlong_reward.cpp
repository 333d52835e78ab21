// The soft overlong punishment of DAPO (Yu et al. 2025, equation 13), to be summed with what says whether an answer is
// right: 0 up to max_length - cache tokens, then falling linearly to -1 at max_length and beyond. `unfinished` is added
// for an answer that the length limit cut off (TRL's missing_eos_penalty, negative).
#include <dsengine/reward.hpp>

#include <algorithm>

struct OverlongReward {
  static constexpr const char* summary = "0 for answers of fair length, down to -1 for those that are too long";
  int64_t max_length, cache;
  double unfinished;

  explicit OverlongReward(dse::Options& o)
      : max_length(o.integer("max_length", 1024, "tokens from which on an answer gets -1", {1, dse::infinity})),
        cache(o.integer("cache", 0, "tokens before max_length over which the punishment grows; 0: a fifth of it",
                        {0, dse::infinity})),
        unfinished(o.real("unfinished", 0.0, "added for an answer without an end")) {
    if (cache == 0) cache = std::max<int64_t>(1, max_length / 5);
    if (cache > max_length) throw dse::Failure("cache is larger than max_length", DSE_BAD_OPTION);
  }

  float score(const dse::Answer& a) const {
    const double beyond = double(a.token_count - (max_length - cache));
    const double punishment = std::clamp(beyond / double(cache), 0.0, 1.0);
    return float(-punishment + (a.finish == DSE_FINISH_LENGTH ? unfinished : 0.0));
  }
};
DSE_REWARD("overlong", OverlongReward)
