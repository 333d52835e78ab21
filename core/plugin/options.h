// The values of a plugin item's options: what the configuration gives, checked against the item's own table,
// and the defaults for the rest.
//
//   OptionSet options(registry.find(DSE_ALGORITHM, "ppo"), stage.plugin["ppo"]);
//   item.algorithm().create(options.values(), &self);
//   fmt::print("{}", options.to_toml());                             // kl_coef = 0.1 …
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dsengine/abi.h"
#include "plugin/settings.h"

// The ABI's opaque values, which a plugin reads through the host's getters.
struct dse_values {
  std::map<std::string, dsengine::OptionVariant> by_name;
};

namespace dsengine {

struct Item;

class OptionSet {
 public:
  // UserError, naming where the value stands, if a name is unknown, a type is wrong (an integer serves as a
  // real), a value is out of range or none of the choices, or a required option is missing.
  OptionSet(const Item& item, const OptionValues& given);

  const dse_values* values() const { return values_.get(); }  // valid while this set, or what it moved to, lives
  // One line "name = value" an option, in the order of the item's table.
  std::string to_toml() const;

 private:
  std::vector<std::string> order_;
  std::unique_ptr<dse_values> values_;
};

}  // namespace dsengine
