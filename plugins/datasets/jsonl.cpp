// JSON lines, plain or gzip. A line's fields say what it is:
//   text | messages [{role, content, train?}] | prompt + completion | prompt + chosen + rejected | prompt + ranked |
//   prompt
// Pairs without a prompt are transcripts ("\n\nHuman: …\n\nAssistant: …", as Anthropic's hh-rlhf): the turns
// both share are the prompt. Other fields are kept as metadata. The file is validated whole when it is opened.
// `ranked` lists answers from the best to the worst; answers in a list of their own tie: [["a", "b"], "c"]. Its record
// becomes every pair of two ranks, which share the record's weight: a prompt counts once however many answers it has
// (Ouyang et al. 2022, section 3.5, where all comparisons of a prompt are one element of the batch).
#include <dsengine/dataset.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>

#include "text_file.h"

namespace {

using Json = nlohmann::ordered_json;
constexpr int kMaxDepth = 100;

// The turns of an hh-rlhf transcript; empty where the text is none.
std::vector<dse::Message> parse_transcript(const std::string& text) {
  const std::string human = "\n\nHuman:", assistant = "\n\nAssistant:";
  std::vector<dse::Message> turns;
  if (!text.starts_with(human)) return turns;
  for (size_t at = 0; at < text.size();) {
    const bool from_human = text.compare(at, human.size(), human) == 0;
    const size_t begin = at + (from_human ? human : assistant).size();
    at = std::min(text.find(human, begin), text.find(assistant, begin));
    std::string content = text.substr(begin, at == std::string::npos ? at : at - begin);
    content.erase(0, content.find_first_not_of(' '));
    turns.push_back({from_human ? "user" : "assistant", content, !from_human});
  }
  return turns;
}

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
    if (places_.empty()) fail(0, "the file has no records");
  }

  int64_t size() const { return int64_t(places_.size()); }

  dse::Record get(int64_t index) const {
    if (index < 0 || index >= size()) throw dse::Failure(path_ + ": no such record", DSE_BAD_DATA);
    const Place& place = places_[size_t(index)];
    Json json = parse(place);
    return record(json, place);
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
    } catch (const Json::exception& e) {
      std::string what = e.what();
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
    record(json, pairs.front());
    places_.insert(places_.end(), pairs.begin(), pairs.end());
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

  dse::Record record(Json& json, const Place& place) const {
    const size_t line = place.line;
    dse::Record r;
    if (json.contains("weight")) {
      if (!json["weight"].is_number() || json["weight"] < 0) fail(line, "'weight' should be a number of at least 0");
      r.weight = json["weight"];
      json.erase("weight");
    }
    const bool pair = json.contains(field_chosen_) || json.contains(field_rejected_);
    if (json.contains("messages")) r.messages = messages(json, line);
    if (json.contains(field_ranked_)) {
      ranked(r, json, place);
    } else if (pair) {
      r.kind = DSE_RECORD_PAIR;
      r.chosen = take_string(json, field_chosen_, line), r.rejected = take_string(json, field_rejected_, line);
      if (json.contains(field_prompt_))
        r.prompt = take_string(json, field_prompt_, line);
      else if (r.messages.empty())
        split_transcripts(r, line);
    } else if (json.contains(field_prompt_)) {
      r.prompt = take_string(json, field_prompt_, line);
      r.kind = json.contains(field_completion_) ? DSE_RECORD_COMPLETION : DSE_RECORD_PROMPT;
      if (r.kind == DSE_RECORD_COMPLETION) r.completion = take_string(json, field_completion_, line);
    } else if (!r.messages.empty()) {
      r.kind = DSE_RECORD_MESSAGES;
    } else if (json.contains("text")) {
      r.kind = DSE_RECORD_TEXT;
      r.text = take_string(json, "text", line);
    } else {
      fail(line, "none of the fields text, messages, " + field_prompt_ + ", " + field_chosen_ + ", " + field_ranked_ +
                     " is there");
    }
    if (!json.empty()) r.metadata = json.dump();
    return r;
  }

  void ranked(dse::Record& r, Json& json, const Place& place) const {
    if (json.contains(field_chosen_) || json.contains(field_rejected_))
      fail(place.line, "'" + field_ranked_ + "' beside '" + field_chosen_ + "' or '" + field_rejected_ + "'");
    if (r.messages.empty()) r.prompt = take_string(json, field_prompt_, place.line);
    auto answers = ranked_answers(json[field_ranked_], place.line);
    json.erase(field_ranked_);
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

  std::vector<dse::Message> messages(Json& json, size_t line) const {
    std::vector<dse::Message> turns;
    if (!json["messages"].is_array() || json["messages"].empty()) fail(line, "'messages' should be a list of turns");
    for (auto& m : json["messages"]) {
      if (!m.is_object()) fail(line, "a message should be an object with role and content");
      const bool train = !m.contains("train") || m["train"] == true;
      turns.push_back({take_string(m, "role", line), take_string(m, "content", line), train});
    }
    json.erase("messages");
    return turns;
  }

  void split_transcripts(dse::Record& r, size_t line) const {
    auto chosen = parse_transcript(r.chosen), rejected = parse_transcript(r.rejected);
    if (chosen.size() < 2 || rejected.size() < 2) fail(line, "a pair without a prompt should be two transcripts");
    size_t shared = 0;
    while (shared + 1 < std::min(chosen.size(), rejected.size()) && chosen[shared].content == rejected[shared].content)
      ++shared;
    // The prompt ends with the human's turn before the first difference; what follows it is the answer.
    while (shared > 0 && chosen[shared - 1].role == "assistant") --shared;
    if (shared == 0) fail(line, "the two transcripts share no prompt");
    r.messages.assign(chosen.begin(), chosen.begin() + int64_t(shared));
    for (auto& m : r.messages) m.train = false;
    r.chosen = chosen[shared].content, r.rejected = rejected[shared].content;
  }

  std::string path_, field_prompt_, field_completion_, field_chosen_, field_rejected_, field_ranked_, text_;
  bool best_alone_;
  std::vector<Place> places_;
};
DSE_DATASET("jsonl", JsonLines)
