// What the engine itself does about a reward that fails or is slow: the keys on_failure, deadline and max_failures
// beside the plugin's options. A plugin that has an option of one of these names keeps it, and the engine then does
// nothing of that name.
//
//   const auto rules = RewardRules::of(item, source.options);
//   RewardInstance reward(item, rules.options);
#pragma once
#include "plugin/item.h"
#include "plugin/options.h"

namespace dsengine {

struct RewardRules {
  bool stop_on_failure = false;  // a score that is none ends the run
  double deadline = 0;  // s that one call, on all of a step's answers (of several ranks, its share), may take; 0: any
  int64_t max_failures = 0;  // more failed answers in a row end the run; 0: any number may
  OptionSet options;         // the plugin's own

  // UserError where a value does not fit, or is of a key that neither has.
  static RewardRules of(const Item& item, const OptionValues& given);
};

}  // namespace dsengine
