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

#include <algorithm>

#include "conversation.h"
#include "json_line.h"
#include "text_file.h"

namespace {

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
    if (places_.empty() && unused_.empty()) fail("the file has no records");
    name_unused();
  }

  int64_t size() const { return int64_t(places_.size()); }

  dse::Record get(int64_t index) const {
    if (index < 0 || index >= size()) throw dse::Failure(path_ + ": no such record", DSE_BAD_DATA);
    const Place& place = places_[size_t(index)];
    JsonLine line = line_at(place);
    return *record(line, place);
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

  JsonLine line_at(const Place& place) const {
    return JsonLine(path_, place.line, std::string_view(text_).substr(place.begin, place.end - place.begin));
  }

  // Validates a line and notes its records.
  void add_records(Place place) {
    JsonLine line = line_at(place);
    std::vector<Place> pairs;
    if (line.has(field_ranked_) && !best_alone_) {
      const auto answers = ranked_answers(line);
      for (place.better = 0; place.better < answers.size(); ++place.better)
        for (place.worse = place.better + 1; place.worse < answers.size(); ++place.worse)
          if (answers[place.better].rank < answers[place.worse].rank) pairs.push_back(place);
      for (auto& pair : pairs) pair.pairs = pairs.size();
    } else {
      pairs.push_back(place);
    }
    if (record(line, pairs.front()))
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
    if (places_.empty()) fail(what);
    dse::host().log(DSE_LOG_WARNING, (path_ + ": " + what).c_str());
  }

  [[noreturn]] void fail(const std::string& what) const { throw dse::Failure(path_ + ": " + what, DSE_BAD_DATA); }

  // Nothing: a pair of conversations that part at no answer.
  std::optional<dse::Record> record(JsonLine& line, const Place& place) const {
    dse::Record r;
    if (line.has("weight")) {
      const Json weight = line.take("weight");
      if (!weight.is_number() || weight < 0) line.fail("'weight' should be a number of at least 0");
      r.weight = weight;
    }
    if (line.has("messages")) r.messages = line.take_turns("messages");
    if (line.has(field_ranked_)) {
      ranked(r, line, place);
    } else if (line.has(field_chosen_) || line.has(field_rejected_)) {
      if (!pair(r, line)) return std::nullopt;
    } else if (line.has(field_prompt_) && line.has(field_completion_)) {
      r.kind = DSE_RECORD_COMPLETION;
      r.completion = take_answer(line, field_completion_);
      take_prompt(r, r.completion, line);
    } else if (!r.messages.empty()) {
      r.kind = DSE_RECORD_MESSAGES;
      if (line.has(field_prompt_)) agree(r.messages, line);
    } else if (line.has(field_prompt_)) {
      r.kind = DSE_RECORD_PROMPT;
      take_prompt(r, "", line);
    } else if (line.has("text")) {
      r.kind = DSE_RECORD_TEXT;
      r.text = line.take_string("text");
    } else {
      line.fail("none of the fields text, messages, " + field_prompt_ + ", " + field_chosen_ + ", " + field_ranked_ +
                " is there");
    }
    r.metadata = line.rest();
    return r;
  }

  // A prompt beside turns: it should be in them.
  void agree(const Turns& turns, JsonLine& line) const {
    const bool in_them = line.has_list(field_prompt_) ? begins_with(turns, line.take_turns(field_prompt_))
                                                      : asks(turns, line.take_string(field_prompt_));
    if (!in_them)
      line.fail("'" + field_prompt_ +
                "' is not in the turns beside it: leave one of them out, or name another prompt_field");
  }

  // What is asked: the messages, but for the answer where they end with it; else the prompt.
  void take_prompt(dse::Record& r, const std::string& answer, JsonLine& line) const {
    if (!r.messages.empty()) {
      if (line.has(field_prompt_)) agree(r.messages, line);
      if (r.messages.back().role == "assistant" && r.messages.back().content == answer) r.messages.pop_back();
    } else if (line.has_list(field_prompt_)) {
      r.messages = line.take_turns(field_prompt_);
    } else {
      r.prompt = line.take_string(field_prompt_);
    }
  }

  // A text, or the assistant's turn alone.
  std::string take_answer(JsonLine& line, const std::string& name) const {
    if (!line.has_list(name)) return line.take_string(name);
    return answer_of(line.take_turns(name), name, line);
  }
  std::string answer_of(const Turns& turns, const std::string& name, const JsonLine& line) const {
    if (turns.size() != 1 || turns[0].role != "assistant")
      line.fail("the field '" + name + "' should be a text or one turn of the assistant");
    return turns[0].content;
  }

  // False: two conversations that part at no answer.
  bool pair(dse::Record& r, JsonLine& line) const {
    r.kind = DSE_RECORD_PAIR;
    Turns chosen, rejected;
    if (line.has_list(field_chosen_) && line.has_list(field_rejected_)) {
      chosen = line.take_turns(field_chosen_), rejected = line.take_turns(field_rejected_);
      const bool answers = chosen[0].role == "assistant" || rejected[0].role == "assistant";
      if (!answers) return conversations(r, chosen, rejected, line);
      r.chosen = answer_of(chosen, field_chosen_, line), r.rejected = answer_of(rejected, field_rejected_, line);
    } else {
      r.chosen = line.take_string(field_chosen_), r.rejected = line.take_string(field_rejected_);
      if (!line.has(field_prompt_) && r.messages.empty()) {
        chosen = parse_transcript(r.chosen), rejected = parse_transcript(r.rejected);
        if (chosen.empty() || rejected.empty()) line.fail("a pair without a prompt should be two transcripts");
        return conversations(r, chosen, rejected, line);
      }
    }
    take_prompt(r, r.chosen, line);
    return true;
  }

  bool conversations(dse::Record& r, const Turns& chosen, const Turns& rejected, JsonLine& line) const {
    const auto at = parting(chosen, rejected);
    if (!at) return false;
    const Turns beside = std::move(r.messages);
    r.messages.assign(chosen.begin(), chosen.begin() + int64_t(*at));
    for (auto& m : r.messages) m.train = false;
    r.chosen = chosen[*at].content, r.rejected = rejected[*at].content;
    if (line.has(field_prompt_)) agree(r.messages, line);
    if (!beside.empty() && !(begins_with(chosen, beside) && beside.size() >= *at))
      line.fail("'messages' is neither what '" + field_chosen_ + "' answers nor all of it: leave it out");
    return true;
  }

  void ranked(dse::Record& r, JsonLine& line, const Place& place) const {
    if (line.has(field_chosen_) || line.has(field_rejected_))
      line.fail("'" + field_ranked_ + "' beside '" + field_chosen_ + "' or '" + field_rejected_ + "'");
    const auto answers = ranked_answers(line);
    line.take(field_ranked_);
    take_prompt(r, answers.front().text, line);
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
  std::vector<RankedAnswer> ranked_answers(const JsonLine& line) const {
    const Json& json = line.field(field_ranked_);
    const std::string what = "the field '" + field_ranked_ + "'", entry = "an answer of '" + field_ranked_ + "'";
    if (!json.is_array()) line.fail(what + " should list answers from the best to the worst");
    std::vector<RankedAnswer> answers;
    for (size_t rank = 0; rank < json.size(); ++rank) {
      if (!json[rank].is_array()) {
        answers.push_back({line.string_of(json[rank], entry), rank});
        continue;
      }
      if (json[rank].empty()) line.fail(what + " holds an empty list");
      for (const auto& tied : json[rank]) answers.push_back({line.string_of(tied, entry), rank});
    }
    if (json.size() < 2) line.fail(what + " needs answers of at least two ranks");
    return answers;
  }

  std::string path_, field_prompt_, field_completion_, field_chosen_, field_rejected_, field_ranked_, text_;
  bool best_alone_;
  std::vector<Place> places_;
  std::vector<size_t> unused_;  // lines of pairs that cannot be compared
};
DSE_DATASET("jsonl", JsonLines)
