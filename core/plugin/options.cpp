#include "plugin/options.h"

#include <algorithm>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "plugin/item.h"
#include "plugin/option.h"

namespace dsengine {

OptionSet::OptionSet(const Item& item, const OptionValues& given) : values_(std::make_unique<dse_values>()) {
  for (const auto& option : item.options) order_.emplace_back(option.name);
  for (const auto& [name, value] : given) {
    if (std::find(order_.begin(), order_.end(), name) != order_.end()) continue;
    const auto near = nearest_name(name, order_);
    throw UserError(error_line("{}: {} '{}' has no option '{}'{}; dsengine plugins info {} lists them", value.where,
                               item_kind_name(item.kind), item.name, name,
                               near.empty() ? "" : fmt::format("; did you mean '{}'?", near), item.name));
  }
  for (const auto& option : item.options) {
    auto& value = values_->by_name[option.name];
    if (const auto found = given.find(option.name); found != given.end()) {
      value = checked_option(option, found->second);
    } else {
      DSE_CHECK_USER(option.default_value, "{} '{}' needs its option '{}' ({}: {}): give it in the configuration",
                     item_kind_name(item.kind), item.name, option.name, option_type_name(option.type), option.help);
      value = default_option(option);
    }
  }
}

std::string OptionSet::to_toml() const {
  std::string text;
  for (const auto& name : order_) text += fmt::format("{} = {}\n", name, dsengine::to_toml(values_->by_name.at(name)));
  return text;
}

}  // namespace dsengine
