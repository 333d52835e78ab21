// Rewards: what an answer is worth.
//
//   struct Short {
//     explicit Short(dse::Options&) {}
//     float score(const dse::Answer& a) const { return -float(a.token_count); }
//   };
//   DSE_REWARD("short", Short)
//
// score(answer) per answer, or scores(span of answers, span of scores) for all at once. NaN says that this
// answer could not be scored, as does any score that is not finite: it is counted and dropped. `static constexpr bool
// needs_model = true` asks the engine to run a reward model first and hand over its value.
#pragma once
#include <span>

#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

using Answer = dse_answer;

template <class T>
Item reward_item(const char* name) {
  constexpr bool needs_model = [] {
    if constexpr (requires { T::needs_model; })
      return T::needs_model;
    else
      return false;
  }();
  static const dse_reward table{
      sizeof(dse_reward), needs_model, create<T>, destroy<T>,
      [](void* self, const dse_answer* answers, int64_t count, float* scores) {
        return guard([&] {
          auto& reward = *static_cast<T*>(self);
          if constexpr (requires { reward.scores(std::span<const Answer>{}, std::span<float>{}); })
            reward.scores(std::span(answers, size_t(count)), std::span(scores, size_t(count)));
          else
            for (int64_t i = 0; i < count; ++i) scores[i] = reward.score(answers[i]);
        });
      }};
  return {DSE_REWARD_ITEM, name, summary_of<T>(), &table, recorded_options<T>()};
}

}  // namespace dse

#define DSE_REWARD(name, Type)                                      \
  DSE_ITEM_NOTE("reward", name, "1.0", dse::noted_summary<Type>()); \
  DSE_PLUGIN(name, "1.0", items.push_back(dse::reward_item<Type>(name)))
