// JSON lines, plain or gzip. A line's fields say what it is:
//   text | messages [{role, content, train?}] | prompt + completion | prompt + chosen + rejected | prompt
// Pairs without a prompt are transcripts ("\n\nHuman: …\n\nAssistant: …", as Anthropic's hh-rlhf): the turns
// both share are the prompt. Other fields are kept as metadata. The file is validated whole when it is opened.
#include <zlib.h>
#include <dsengine/dataset.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>

namespace {

using Json = nlohmann::ordered_json;
constexpr int kMaxDepth = 100;

std::string read_file(const std::string& path) {
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw dse::Failure(path + ": cannot be opened", DSE_BAD_DATA);
  std::string text;
  char buffer[1 << 16];
  int count = 0;
  while ((count = gzread(file.get(), buffer, sizeof buffer)) > 0) text.append(buffer, size_t(count));
  int code = 0;
  const char* what = gzerror(file.get(), &code);
  if (count < 0 || code != Z_OK) throw dse::Failure(path + ": cannot be read: " + what, DSE_BAD_DATA);
  return text;
}

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
        field_rejected_(o.string("rejected_field", "rejected", "name of the worse answer's field")) {
    if (path.empty()) return;  // options alone are wanted
    text_ = read_file(path);
    for (size_t at = 0, line = 1; at < text_.size(); ++line) {
      const size_t end = std::min(text_.find('\n', at), text_.size());
      if (text_.find_first_not_of(" \t\r", at) < end) lines_.push_back({at, end, line});
      at = end + 1;
    }
    if (lines_.empty()) fail(0, "the file has no records");
    for (int64_t i = 0; i < size(); ++i) get(i);
  }

  int64_t size() const { return int64_t(lines_.size()); }

  dse::Record get(int64_t index) const {
    if (index < 0 || index >= size()) throw dse::Failure(path_ + ": no such record", DSE_BAD_DATA);
    const auto& [begin, end, line] = lines_[size_t(index)];
    Json json;
    try {
      json = Json::parse(text_.begin() + int64_t(begin), text_.begin() + int64_t(end),
                         [&, line = line](int depth, Json::parse_event_t, Json&) {
                           if (depth > kMaxDepth) fail(line, "JSON nested deeper than 100 levels");
                           return true;
                         });
    } catch (const Json::exception& e) {
      std::string what = e.what();
      fail(line, "not valid JSON: " + what.substr(what.find("] ") + 2));
    }
    if (!json.is_object()) fail(line, "a record is a JSON object");
    return record(json, line);
  }

 private:
  struct Line {
    size_t begin, end, number;
  };

  [[noreturn]] void fail(size_t line, const std::string& what) const {
    throw dse::Failure(path_ + (line ? ":" + std::to_string(line) : "") + ": " + what, DSE_BAD_DATA);
  }
  std::string take_string(Json& json, const std::string& name, size_t line) const {
    const auto it = json.find(name);
    if (it == json.end()) fail(line, "the field '" + name + "' is missing");
    if (!it->is_string()) fail(line, "the field '" + name + "' should be a string");
    std::string value = *it;
    if (value.find('\0') != std::string::npos) fail(line, "the field '" + name + "' holds a zero byte");
    json.erase(it);
    return value;
  }

  dse::Record record(Json& json, size_t line) const {
    dse::Record r;
    if (json.contains("weight")) {
      if (!json["weight"].is_number() || json["weight"] < 0) fail(line, "'weight' should be a number of at least 0");
      r.weight = json["weight"];
      json.erase("weight");
    }
    const bool pair = json.contains(field_chosen_) || json.contains(field_rejected_);
    if (json.contains("messages")) r.messages = messages(json, line);
    if (pair) {
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
      fail(line, "none of the fields text, messages, " + field_prompt_ + ", " + field_chosen_ + " is there");
    }
    if (!json.empty()) r.metadata = json.dump();
    return r;
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

  std::string path_, field_prompt_, field_completion_, field_chosen_, field_rejected_, text_;
  std::vector<Line> lines_;
};
DSE_DATASET("jsonl", JsonLines)
