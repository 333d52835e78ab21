// The values of a plugin item's options: what the configuration gives, checked against the item's own table,
// and the defaults for the rest.
//
//   OptionSet options(registry.find(DSE_ALGORITHM, "ppo"), stage.plugin["ppo"]);  // UserError: name, line,
//   advice item.algorithm().create(options.values(), &self); fmt::print("{}", options.to_toml()); // kl_coef
//   = 0.1 …
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dsengine/abi.h"
#include "plugin/settings.h"

// The ABI's opaque values, which a plugin reads through the host's getters.
struct dse_values {
  std::map<std::string, std::variant<bool, int64_t, double, std::string>> by_name;
};

namespace dsengine {

struct Item;

using OptionVariant = decltype(OptionValue::value);

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

// "" or what is wrong with an option table's row: name, type, default, range, choices.
std::string option_fault(const dse_option& option);
// As TOML spells it: reals always with a point or an exponent, strings quoted.
std::string to_toml(const OptionVariant& value);
// "boolean", "integer", "real" or "string".
const char* option_type_name(uint32_t type);
// "0 … 1", "≥ 0", "a | b" or "": the values an option admits.
std::string option_domain(const dse_option& option);

}  // namespace dsengine
