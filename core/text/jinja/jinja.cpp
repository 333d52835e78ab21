#include "text/jinja/jinja.h"

#include <fmt/format.h>

#include <chrono>
#include <limits>

#include "base/check.h"
#include "base/printable.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/print.h"
#include "text/utf8.h"

namespace dsengine::jinja {
namespace {

// What raise_exception says.
class Refusal : public Error {
  using Error::Error;
};

Value function(std::string name, std::function<Value(const Values&, const Named&)> call) {
  return std::make_shared<const Callable>(Callable{std::move(name), std::move(call)});
}

Value range_of(const Values& values, const Named& named, Budget& budget) {
  if (values.empty() || values.size() > 3 || !named.empty()) throw Error("range() takes one to three numbers");
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].is_undefined()) undefined_error(values[i]);
    const auto n = as_integer(values[i]);
    if (!n) throw Error(fmt::format("range() takes integers, not '{}'", type_name(values[i])));
    bounds[values.size() == 1 ? 1 : i] = *n;
  }
  const auto [from, to, step] = bounds;
  if (step == 0) throw Error("range() arg 3 must not be zero");
  Values items;
  for (int64_t i = from; step > 0 ? i < to : i > to;) {
    if (items.size() == 100'000) throw Error("a range of more than 100000 numbers");  // the sandbox's bound
    items.push_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  budget.step(int64_t(items.size()));
  return sequence(Sequence::Kind::list, std::move(items), budget);
}

// dict(…): of a dict or of pairs, and named values.
std::vector<std::pair<Value, Value>> pairs_of(const Values& values, const Named& named, Budget& budget) {
  std::vector<std::pair<Value, Value>> items;
  if (values.size() > 1) throw Error("dict expected at most 1 argument");
  if (!values.empty() && values[0].dict()) {
    items = values[0].dict()->items;
  } else if (!values.empty()) {
    for (const auto& pair : iterate(values[0], budget)) {
      Values two = iterate(pair, budget);
      if (two.size() != 2) throw Error("dict() wants pairs");
      items.emplace_back(std::move(two[0]), std::move(two[1]));
    }
  }
  for (const auto& [name, value] : named) items.emplace_back(text(name, scaffold), value);
  return items;
}

std::string shown_time(const std::string& form, std::optional<std::time_t> now) {
  const std::time_t time = now ? *now : std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  if (now)
    gmtime_r(&time, &parts);
  else
    localtime_r(&time, &parts);
  if (form.empty() || form.size() > 1000) return "";
  std::string shown(16 * form.size() + 256, '\0');
  shown.resize(std::strftime(shown.data(), shown.size(), form.c_str(), &parts));
  return to_valid_utf8(shown);
}

Named globals(Interpreter& in, std::optional<std::time_t> now) {
  Budget& budget = in.budget();
  Named names;
  const auto add = [&](const char* name, std::function<Value(const Values&, const Named&)> call) {
    names.emplace_back(name, function(name, std::move(call)));
  };
  add("range", [&budget](const Values& v, const Named& n) { return range_of(v, n, budget); });
  add("dict", [&budget](const Values& v, const Named& n) { return dict(pairs_of(v, n, budget), budget); });
  add("namespace", [&in, &budget](const Values& v, const Named& n) -> Value {
    Space* space = in.new_space();
    const Value made = dict(pairs_of(v, n, budget), budget);
    for (const auto& [key, value] : made.dict()->items) {
      const std::string name = str(key, budget)->bytes;
      if (name.starts_with('_')) throw Error("a namespace's names cannot begin with an underscore");
      space->items.emplace_back(name, value);
    }
    return space;
  });
  add("raise_exception", [&budget](const Values& v, const Named& n) -> Value {
    Arguments a("raise_exception", v, n);
    const Value& message = a.need("message");
    a.done();
    throw Refusal(str(message, budget)->bytes);
  });
  add("strftime_now", [now](const Values& v, const Named& n) -> Value {
    Arguments a("strftime_now", v, n);
    const TextPtr form = a.text("format");
    a.done();
    if (!form) throw Error("strftime_now() wants a format");
    return text(shown_time(form->bytes, now), scaffold);
  });
  return names;
}

Value value_of(const Json& json, char origin, Budget& budget) {
  switch (json.type()) {
    case Json::value_t::null:
      return None{};
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::number_unsigned:
      DSE_CHECK_USER(json.get<uint64_t>() <= uint64_t(std::numeric_limits<int64_t>::max()),
                     "{} is beyond the integers that chat templates read", json.get<uint64_t>());
      return json.get<int64_t>();
    case Json::value_t::string:
      return text(json.get<std::string>(), origin);
    case Json::value_t::array: {
      Values items;
      for (const auto& v : json) items.push_back(value_of(v, origin, budget));
      return sequence(Sequence::Kind::list, std::move(items), budget);
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& [key, v] : json.items()) items.emplace_back(text(key, origin), value_of(v, origin, budget));
      return dict(std::move(items), budget);
    }
    default:
      return None{};
  }
}

}  // namespace

Value value_of(const Json& json, char origin) {
  Budget data{.bytes = int64_t{4} << 30};  // data is as large as it is
  try {
    return value_of(json, origin, data);
  } catch (const Error& e) {
    throw UserError(error_line("a conversation's data: {}", e.what()));
  }
}

Text render(const Template& from, const Named& variables, std::optional<std::time_t> now) {
  Named all = variables;
  Interpreter interpreter(all);
  Named more = globals(interpreter, now);
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  try {
    interpreter.run(from.body);
    return interpreter.take();
  } catch (const Refusal& e) {
    throw UserError(
        error_line("{}:{}: the chat template refuses this conversation: {}", from.where, interpreter.line(), e.what()));
  } catch (const Error& e) {
    throw UserError(error_line("{}:{}: the chat template fails: {}", from.where, interpreter.line(), e.what()));
  }
}

}  // namespace dsengine::jinja
