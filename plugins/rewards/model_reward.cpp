// The score of a trained reward model, in standard deviations of its scores on the answers it was trained on.
#include <dsengine/reward.hpp>

struct ModelReward {
  static constexpr const char* summary = "value of a trained reward model at the last token";
  static constexpr bool needs_model = true;
  bool normalize;
  double shift, scale;

  explicit ModelReward(dse::Options& o)
      : normalize(o.boolean("normalize", true, "subtract the mean and divide by the deviation that training recorded")),
        shift(o.real("shift", 0.0, "added after that")),
        scale(o.real("scale", 1.0, "multiplies last")) {}

  float score(const dse::Answer& a) const {
    const bool known = normalize && a.model_sd > 0;
    const double score = known ? (a.model_score - a.model_mean) / a.model_sd : a.model_score;
    return float((score + shift) * scale);
  }
};
DSE_REWARD("model", ModelReward)
