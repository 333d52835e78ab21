// JSON lines, plain or gzip. A line's fields say what it is:
//   text | messages [{role, content, train?}] | prompt + completion | prompt + chosen + rejected | prompt + ranked |
//   prompt
// Turns may stand for a prompt and for an answer, and `messages` for the prompt of pairs and ranked answers; a prompt
// beside messages should be one of their turns. Pairs may be two conversations: lists of turns, or transcripts
// ("\n\nHuman: …\n\nAssistant: …", as Anthropic's hh-rlhf). The turns that both share are the prompt; those that part
// at no answer are left out and named. Other fields are kept as metadata, as they are written. The file is validated
// whole when it is opened. `ranked` lists answers from the best to the worst; answers in a list of their own tie:
// [["a", "b"], "c"]. Its record becomes every pair of two ranks, which share the record's weight: a prompt counts once
// however many answers it has (Ouyang et al. 2022, section 3.5, where all comparisons of a prompt are one element of
// the batch).
#include <dsengine/dataset.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>

#include "../json_text.h"
#include "conversation.h"
#include "text_file.h"

namespace {

using Json = nlohmann::ordered_json;
constexpr int kMaxDepth = 100;
constexpr size_t kNamedLines = 10;  // of a warning

}  // namespace

class JsonLines {
 public:
  static constexpr const char* summary = "records from a file of JSON lines, plain or gzip";

  JsonLines(dse::Options& o, const std::string& path)
      : path_(path),
        field_prompt_(o.string("prompt_field", "prompt", "name of the prompt's field")),
        field_completion_(o.string("completion_field", "completion", "name of the completion's field")),
        field_chosen_(o.string("chosen_field", "chosen", "name of the better answer's field")),
        field_rejected_(o.string("rejected_field", "rejected", "name of the worse answer's field")),
        field_ranked_(o.string("ranked_field", "ranked", "name of the field that lists answers from best to worst")),
        best_alone_(o.string("ranked_as", "pairs", "ranked answers: every pair of them, or the best as a completion",
                             "pairs|best") == "best") {
    if (path.empty()) return;  // options alone are wanted
    text_ = read_text_file(path);
    for (size_t at = 0, line = 1; at < text_.size(); ++line) {
      const size_t end = std::min(text_.find('\n', at), text_.size());
      if (text_.find_first_not_of(" \t\r", at) < end) add_records({at, end, line, 0, 0, 1});
      at = end + 1;
    }
    if (places_.empty() && unused_.empty()) fail(0, "the file has no records");
    name_unused();
  }

  int64_t size() const { return int64_t(places_.size()); }

  dse::Record get(int64_t index) const {
    if (index < 0 || index >= size()) throw dse::Failure(path_ + ": no such record", DSE_BAD_DATA);
    const Place& place = places_[size_t(index)];
    Json json = parse(place);
    return *record(json, place);
  }

 private:
  // A record: a line, and of a line with ranked answers two of them.
  struct Place {
    size_t begin, end, line;
    size_t better, worse, pairs;
  };
  struct RankedAnswer {
    std::string text;
    size_t rank;
  };

  Json parse(const Place& place) const {
    Json json;
    try {
      json = Json::parse(text_.begin() + int64_t(place.begin), text_.begin() + int64_t(place.end),
                         [&](int depth, Json::parse_event_t, Json&) {
                           if (depth > kMaxDepth) fail(place.line, "JSON nested deeper than 100 levels");
                           return true;
                         });
    } catch (const Json::out_of_range& e) {  // a number: no double holds it
      const std::string what = e.what();
      fail(place.line, what.substr(what.find("] ") + 2));
    } catch (const Json::exception& e) {
      const std::string what = e.what();
      fail(place.line, "not valid JSON: " + what.substr(what.find("] ") + 2));
    }
    if (!json.is_object()) fail(place.line, "a record is a JSON object");
    return json;
  }

  // Validates a line and notes its records.
  void add_records(Place place) {
    Json json = parse(place);
    std::vector<Place> pairs;
    if (json.contains(field_ranked_) && !best_alone_) {
      const auto answers = ranked_answers(json[field_ranked_], place.line);
      for (place.better = 0; place.better < answers.size(); ++place.better)
        for (place.worse = place.better + 1; place.worse < answers.size(); ++place.worse)
          if (answers[place.better].rank < answers[place.worse].rank) pairs.push_back(place);
      for (auto& pair : pairs) pair.pairs = pairs.size();
    } else {
      pairs.push_back(place);
    }
    if (record(json, pairs.front()))
      places_.insert(places_.end(), pairs.begin(), pairs.end());
    else
      unused_.push_back(place.line);
  }

  void name_unused() const {
    if (unused_.empty()) return;
    std::string lines;
    for (size_t i = 0; i < std::min(unused_.size(), kNamedLines); ++i)
      lines += (i ? ", " : "") + std::to_string(unused_[i]);
    const std::string what = std::to_string(unused_.size()) +
                             " pairs are not used, for their conversations part at a turn that is no answer, or one is "
                             "the other's beginning: lines " +
                             lines + (unused_.size() > kNamedLines ? ", …" : "");
    if (places_.empty()) fail(0, what);
    dse::host().log(DSE_LOG_WARNING, (path_ + ": " + what).c_str());
  }

  [[noreturn]] void fail(size_t line, const std::string& what) const {
    throw dse::Failure(path_ + (line ? ":" + std::to_string(line) : "") + ": " + what, DSE_BAD_DATA);
  }
  std::string take_string(Json& json, const std::string& name, size_t line) const {
    const auto it = json.find(name);
    if (it == json.end()) fail(line, "the field '" + name + "' is missing");
    std::string value = string_of(*it, "the field '" + name + "'", line);
    json.erase(it);
    return value;
  }
  std::string string_of(const Json& json, const std::string& what, size_t line) const {
    if (!json.is_string()) fail(line, what + " should be a string");
    std::string value = json;
    if (value.find('\0') != std::string::npos) fail(line, what + " holds a zero byte");
    return value;
  }

  // Nothing: a pair of conversations that part at no answer.
  std::optional<dse::Record> record(Json& json, const Place& place) const {
    const size_t line = place.line;
    dse::Record r;
    if (json.contains("weight")) {
      if (!json["weight"].is_number() || json["weight"] < 0) fail(line, "'weight' should be a number of at least 0");
      r.weight = json["weight"];
      json.erase("weight");
    }
    if (json.contains("messages")) r.messages = take_turns(json, "messages", line);
    if (json.contains(field_ranked_)) {
      ranked(r, json, place);
    } else if (json.contains(field_chosen_) || json.contains(field_rejected_)) {
      if (!pair(r, json, line)) return std::nullopt;
    } else if (json.contains(field_prompt_) && json.contains(field_completion_)) {
      r.kind = DSE_RECORD_COMPLETION;
      r.completion = take_answer(json, field_completion_, line);
      take_prompt(r, r.completion, json, line);
    } else if (!r.messages.empty()) {
      r.kind = DSE_RECORD_MESSAGES;
      if (json.contains(field_prompt_)) agree(r.messages, json, line);
    } else if (json.contains(field_prompt_)) {
      r.kind = DSE_RECORD_PROMPT;
      take_prompt(r, "", json, line);
    } else if (json.contains("text")) {
      r.kind = DSE_RECORD_TEXT;
      r.text = take_string(json, "text", line);
    } else {
      fail(line, "none of the fields text, messages, " + field_prompt_ + ", " + field_chosen_ + ", " + field_ranked_ +
                     " is there");
    }
    if (!json.empty()) r.metadata = metadata(json, place);
    return r;
  }

  // What is left of a record, each value as it is written.
  std::string metadata(const Json& json, const Place& place) const {
    const auto members = json_members(std::string_view(text_).substr(place.begin, place.end - place.begin));
    std::string text;
    for (const auto& [key, value] : json.items())
      text += (text.empty() ? "{" : ",") + Json(key).dump() + ":" + compact_json(members.at(key));
    return text + "}";
  }

  // A prompt beside turns: it should be in them.
  void agree(const Turns& turns, Json& json, size_t line) const {
    const bool in_them = json[field_prompt_].is_array() ? begins_with(turns, take_turns(json, field_prompt_, line))
                                                        : asks(turns, take_string(json, field_prompt_, line));
    if (!in_them)
      fail(line, "'" + field_prompt_ +
                     "' is not in the turns beside it: leave one of them out, or name another prompt_field");
  }

  // What is asked: the messages, but for the answer where they end with it; else the prompt.
  void take_prompt(dse::Record& r, const std::string& answer, Json& json, size_t line) const {
    if (!r.messages.empty()) {
      if (json.contains(field_prompt_)) agree(r.messages, json, line);
      if (r.messages.back().role == "assistant" && r.messages.back().content == answer) r.messages.pop_back();
    } else if (json.contains(field_prompt_) && json[field_prompt_].is_array()) {
      r.messages = take_turns(json, field_prompt_, line);
    } else {
      r.prompt = take_string(json, field_prompt_, line);
    }
  }

  // A text, or the assistant's turn alone.
  std::string take_answer(Json& json, const std::string& name, size_t line) const {
    if (!json.contains(name) || !json[name].is_array()) return take_string(json, name, line);
    return answer_of(take_turns(json, name, line), name, line);
  }
  std::string answer_of(const Turns& turns, const std::string& name, size_t line) const {
    if (turns.size() != 1 || turns[0].role != "assistant")
      fail(line, "the field '" + name + "' should be a text or one turn of the assistant");
    return turns[0].content;
  }

  // False: two conversations that part at no answer.
  bool pair(dse::Record& r, Json& json, size_t line) const {
    r.kind = DSE_RECORD_PAIR;
    const auto is_list = [&](const std::string& name) { return json.contains(name) && json[name].is_array(); };
    Turns chosen, rejected;
    if (is_list(field_chosen_) && is_list(field_rejected_)) {
      chosen = take_turns(json, field_chosen_, line), rejected = take_turns(json, field_rejected_, line);
      const bool answers = chosen[0].role == "assistant" || rejected[0].role == "assistant";
      if (!answers) return conversations(r, chosen, rejected, json, line);
      r.chosen = answer_of(chosen, field_chosen_, line), r.rejected = answer_of(rejected, field_rejected_, line);
    } else {
      r.chosen = take_string(json, field_chosen_, line), r.rejected = take_string(json, field_rejected_, line);
      if (!json.contains(field_prompt_) && r.messages.empty()) {
        chosen = parse_transcript(r.chosen), rejected = parse_transcript(r.rejected);
        if (chosen.empty() || rejected.empty()) fail(line, "a pair without a prompt should be two transcripts");
        return conversations(r, chosen, rejected, json, line);
      }
    }
    take_prompt(r, r.chosen, json, line);
    return true;
  }

  bool conversations(dse::Record& r, const Turns& chosen, const Turns& rejected, Json& json, size_t line) const {
    const auto at = parting(chosen, rejected);
    if (!at) return false;
    const Turns beside = std::move(r.messages);
    r.messages.assign(chosen.begin(), chosen.begin() + int64_t(*at));
    for (auto& m : r.messages) m.train = false;
    r.chosen = chosen[*at].content, r.rejected = rejected[*at].content;
    if (json.contains(field_prompt_)) agree(r.messages, json, line);
    if (!beside.empty() && !(begins_with(chosen, beside) && beside.size() >= *at))
      fail(line, "'messages' is neither what '" + field_chosen_ + "' answers nor all of it: leave it out");
    return true;
  }

  void ranked(dse::Record& r, Json& json, const Place& place) const {
    if (json.contains(field_chosen_) || json.contains(field_rejected_))
      fail(place.line, "'" + field_ranked_ + "' beside '" + field_chosen_ + "' or '" + field_rejected_ + "'");
    auto answers = ranked_answers(json[field_ranked_], place.line);
    json.erase(field_ranked_);
    take_prompt(r, answers.front().text, json, place.line);
    if (best_alone_) {
      r.kind = DSE_RECORD_COMPLETION;
      r.completion = answers.front().text;
    } else {
      r.kind = DSE_RECORD_PAIR;
      r.chosen = answers[place.better].text, r.rejected = answers[place.worse].text;
      r.weight /= double(place.pairs);
    }
  }

  // The answers from the best to the worst, with a rank for each; tied ones have the same.
  std::vector<RankedAnswer> ranked_answers(const Json& json, size_t line) const {
    const std::string what = "the field '" + field_ranked_ + "'", entry = "an answer of '" + field_ranked_ + "'";
    if (!json.is_array()) fail(line, what + " should list answers from the best to the worst");
    std::vector<RankedAnswer> answers;
    for (size_t rank = 0; rank < json.size(); ++rank) {
      if (!json[rank].is_array()) {
        answers.push_back({string_of(json[rank], entry, line), rank});
        continue;
      }
      if (json[rank].empty()) fail(line, what + " holds an empty list");
      for (const auto& tied : json[rank]) answers.push_back({string_of(tied, entry, line), rank});
    }
    if (json.size() < 2) fail(line, what + " needs answers of at least two ranks");
    return answers;
  }

  Turns take_turns(Json& json, const std::string& name, size_t line) const {
    Turns turns;
    if (!json[name].is_array() || json[name].empty()) fail(line, "'" + name + "' should be a list of turns");
    for (auto& m : json[name]) {
      if (!m.is_object()) fail(line, "a message should be an object with role and content");
      const bool train = !m.contains("train") || m["train"] == true;
      turns.push_back({take_string(m, "role", line), take_string(m, "content", line), train});
    }
    json.erase(name);
    return turns;
  }

  std::string path_, field_prompt_, field_completion_, field_chosen_, field_rejected_, field_ranked_, text_;
  bool best_alone_;
  std::vector<Place> places_;
  std::vector<size_t> unused_;  // lines of pairs that cannot be compared
};
DSE_DATASET("jsonl", JsonLines)
