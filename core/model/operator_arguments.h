// The attributes and parameters of an operator that a model plugin declares: each is taken once, with errors that name
// the operator, and what is left over at the end is an error too.
//
//   OperatorArguments a(op);
//   const auto heads = a.positive("heads");
//   auto weight = a.required("q.weight", {rows, columns}, Init::normal);
//   a.finish();
#pragma once
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/printable.h"
#include "dsengine/abi.h"
#include "param/layout.h"
#include "plugin/normalise.h"

namespace dsengine {

class OperatorArguments {
 public:
  explicit OperatorArguments(const dse_operator& op) : name_(op.name) {
    for (const auto& a : read_array<dse_attribute>(op.attributes, op.attribute_count, name_ + ": attributes"))
      attributes_.emplace(a.name, a);
    for (const auto& p : read_array<dse_parameter>(op.parameters, op.parameter_count, name_ + ": parameters"))
      parameters_.emplace(p.role, p);
  }
  double real(const char* name) { return take(name, DSE_OPTION_REAL).real; }
  int64_t integer(const char* name) { return take(name, DSE_OPTION_INTEGER).integer; }
  int64_t positive(const char* name) {
    const auto value = integer(name);
    DSE_CHECK_USER(value > 0 && value < (int64_t{1} << 31), "operator {}: {} = {} is out of range", name_, name, value);
    return value;
  }
  bool boolean(const char* name) { return take(name, DSE_OPTION_BOOLEAN).integer != 0; }
  std::string string(const char* name) { return take(name, DSE_OPTION_STRING).string; }
  // All of that name, in their order; may be none.
  std::vector<float> reals(const char* name) {
    std::vector<float> values;
    while (attributes_.count(name)) values.push_back(float(real(name)));
    return values;
  }
  double not_negative(const char* name) {
    const double value = real(name);
    DSE_CHECK_USER(value >= 0 && std::isfinite(value), "operator {}: {} = {} is out of range", name_, name, value);
    return value;
  }

  std::optional<ParamSpec> parameter(const std::string& role, std::vector<int64_t> shape, Init init,
                                     ParamRole in_model) {
    const auto it = parameters_.find(role);
    if (it == parameters_.end()) return std::nullopt;
    const auto& p = it->second;
    DSE_CHECK_USER(p.group_rows == 0 || (p.group_rows > 0 && p.group_stride >= p.group_rows && p.first_row >= 0 &&
                                         shape[0] % p.group_rows == 0),
                   "operator {}: {} rows of {} in groups of {} rows, {} apart", name_, shape[0], role, p.group_rows,
                   p.group_stride);
    const bool transposed = p.transposed != 0 && shape.size() > 1;
    ParamSpec spec{p.tensor, std::move(shape), init, transposed, p.first_row, p.group_rows, p.group_stride, in_model};
    parameters_.erase(it);
    return spec;
  }
  ParamSpec required(const std::string& role, std::vector<int64_t> shape, Init init, ParamRole in_model) {
    auto spec = parameter(role, std::move(shape), init, in_model);
    DSE_CHECK_USER(spec.has_value(), "operator {}: parameter {} is missing", name_, role);
    return *std::move(spec);
  }
  // What this engine does not know would be silently wrong.
  void finish() const {
    for (const auto& [name, _] : attributes_)
      user_error(error_line("operator {}: this engine does not know the attribute {}", name_, name));
    for (const auto& [role, _] : parameters_)
      user_error(error_line("operator {}: this engine does not know the parameter {}", name_, role));
  }

 private:
  dse_attribute take(const char* name, uint32_t type) {
    const auto it = attributes_.lower_bound(name);  // the first of them
    DSE_CHECK_USER(it != attributes_.end() && it->first == name && it->second.type == type,
                   "operator {}: attribute {} is missing or of another type", name_, name);
    const auto found = it->second;
    attributes_.erase(it);
    return found;
  }
  std::string name_;
  std::multimap<std::string, dse_attribute> attributes_;
  std::map<std::string, dse_parameter> parameters_;
};

}  // namespace dsengine
