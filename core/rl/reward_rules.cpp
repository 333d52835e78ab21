#include "rl/reward_rules.h"

#include <algorithm>
#include <limits>

namespace dsengine {

namespace {

constexpr double kAny = std::numeric_limits<double>::infinity();
constexpr dse_option kKeys[] = {
    {sizeof(dse_option), DSE_OPTION_STRING, "on_failure", "drop", "drop|stop", 1, 0, ""},
    {sizeof(dse_option), DSE_OPTION_REAL, "deadline", "0", nullptr, 0, kAny, ""},
    {sizeof(dse_option), DSE_OPTION_INTEGER, "max_failures", "0", nullptr, 0, kAny, ""},
};

}  // namespace

RewardRules RewardRules::of(const Item& item, const OptionValues& given) {
  Item engine;
  engine.kind = item.kind, engine.name = item.name;
  engine.options.assign(std::begin(kKeys), std::end(kKeys));
  OptionValues engines, plugins = given;
  for (const auto& key : kKeys) {
    const bool own = std::any_of(item.options.begin(), item.options.end(),
                                 [&](const dse_option& o) { return std::string_view(o.name) == key.name; });
    if (auto node = own ? OptionValues::node_type() : plugins.extract(key.name)) engines.insert(std::move(node));
  }
  const OptionSet set(engine, engines);
  const auto& values = set.values()->by_name;
  return {std::get<std::string>(values.at("on_failure")) == "stop", std::get<double>(values.at("deadline")),
          std::get<int64_t>(values.at("max_failures")), OptionSet(item, plugins)};
}

}  // namespace dsengine
