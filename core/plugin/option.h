// One row of an item's option table: what it admits, and how its values are spelled.
//
//   if (const auto fault = option_fault(row); !fault.empty()) …      // a malformed row
//   OptionVariant value = checked_option(row, given);                // UserError where the row does not admit it
//   fmt::print("{} = {}  # {}\n", row.name, to_toml(value), option_domain(row));
#pragma once
#include <cstdint>
#include <string>

#include "dsengine/abi.h"
#include "plugin/settings.h"

namespace dsengine {

// "" or what is wrong with the row: name, type, default, range, choices.
std::string option_fault(const dse_option& option);
// "boolean", "integer", "real" or "string".
const char* option_type_name(uint32_t type);
// "0 … 1", "≥ 0", "a | b" or "": the values it admits.
std::string option_domain(const dse_option& option);

// Of a row without a fault that has a default.
OptionVariant default_option(const dse_option& option);
// What was given, an integer as a real where the row wants one. UserError, naming where it stands, if its type is
// wrong, or it is out of range or none of the choices.
OptionVariant checked_option(const dse_option& option, const OptionValue& given);

// As TOML spells it: reals always with a point or an exponent, strings quoted.
std::string to_toml(const OptionVariant& value);

}  // namespace dsengine
