// A line of a file of records: a JSON object whose fields are taken one by one. What is wrong with it is a failure that
// names the file and the line.
//
//   JsonLine line(path, 12, text);
//   if (line.has("prompt")) prompt = line.take_string("prompt");
//   metadata = line.rest();                                // what nobody took
#pragma once
#include <dsengine/dataset.hpp>
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

#include "../json_text.h"
#include "conversation.h"

namespace {

using Json = nlohmann::ordered_json;
constexpr int kMaxDepth = 100;

class JsonLine {
 public:
  // The text is borrowed.
  JsonLine(const std::string& path, size_t number, std::string_view text)
      : place_(path + ":" + std::to_string(number)), text_(text) {
    try {
      json_ = Json::parse(text.begin(), text.end(), [&](int depth, Json::parse_event_t, Json&) {
        if (depth > kMaxDepth) fail("JSON nested deeper than 100 levels");
        return true;
      });
    } catch (const Json::out_of_range& e) {  // a number: no double holds it
      const std::string what = e.what();
      fail(what.substr(what.find("] ") + 2));
    } catch (const Json::exception& e) {
      const std::string what = e.what();
      fail("not valid JSON: " + what.substr(what.find("] ") + 2));
    }
    if (!json_.is_object()) fail("a record is a JSON object");
  }

  [[noreturn]] void fail(const std::string& what) const { throw dse::Failure(place_ + ": " + what, DSE_BAD_DATA); }

  bool has(const std::string& name) const { return json_.contains(name); }
  bool has_list(const std::string& name) const { return has(name) && json_[name].is_array(); }

  const Json& field(const std::string& name) const { return json_[name]; }  // one that it has
  Json take(const std::string& name) {
    Json value = std::move(json_[name]);
    json_.erase(name);
    return value;
  }
  std::string take_string(const std::string& name) { return take_string(json_, name); }
  Turns take_turns(const std::string& name) {
    Turns turns;
    if (!has_list(name) || json_[name].empty()) fail("'" + name + "' should be a list of turns");
    for (auto& m : json_[name]) {
      if (!m.is_object()) fail("a message should be an object with role and content");
      const bool train = !m.contains("train") || m["train"] == true;
      turns.push_back({take_string(m, "role"), take_string(m, "content"), train});
    }
    json_.erase(name);
    return turns;
  }
  std::string string_of(const Json& json, const std::string& what) const {
    if (!json.is_string()) fail(what + " should be a string");
    std::string value = json;
    if (value.find('\0') != std::string::npos) fail(what + " holds a zero byte");
    return value;
  }

  // The fields that are left, each value as it is written; "": none are.
  std::string rest() const {
    if (json_.empty()) return "";
    const auto members = json_members(text_);
    std::string text;
    for (const auto& [key, value] : json_.items())
      text += (text.empty() ? "{" : ",") + Json(key).dump() + ":" + compact_json(members.at(key));
    return text + "}";
  }

 private:
  std::string take_string(Json& json, const std::string& name) const {
    const auto it = json.find(name);
    if (it == json.end()) fail("the field '" + name + "' is missing");
    std::string value = string_of(*it, "the field '" + name + "'");
    json.erase(it);
    return value;
  }

  std::string place_;
  std::string_view text_;
  Json json_;
};

}  // namespace
