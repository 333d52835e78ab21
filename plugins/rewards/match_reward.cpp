// Answers checked by rule, for tasks whose truth is in the data: a metadata field of the record says what is right.
//   exact    the reply, white space trimmed, is the field
//   number   the number after `marker` in the reply (GSM8K's "#### 72"; without a marker, the last number) is the one
//   in
//            the field, read the same way and compared exactly: 1/2 is 0.5, 1e20 is not 20 (number_text.h)
//   regex    the reply matches `pattern`; with a capture group, the group is the field
// A reply that is wrong but in the form asked for (it has the marker and a number; it matches) gets `format_score`.
#include <dsengine/reward.hpp>

#include "../json_text.h"
#include "number_text.h"

namespace {

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::optional<ExactNumber> answer_number(const std::string& text, const std::string& marker) {
  if (marker.empty()) return number_in(text, WhichNumber::last);
  const auto at = text.rfind(marker);
  return at == text.npos ? std::nullopt
                         : number_in(std::string_view(text).substr(at + marker.size()), WhichNumber::first);
}

}  // namespace

class MatchReward {
 public:
  static constexpr const char* summary = "answers checked by rule against a field of the record";

  explicit MatchReward(dse::Options& o)
      : kind_(o.string("kind", "number", "exact, number or regex", "exact|number|regex")),
        field_(o.string("field", "answer", "the record's field that holds the truth")),
        marker_(o.string("marker", "####", "number: what stands before the answer; empty: the last number counts")),
        regex_(
            o.string("pattern", ".*", "regex: a Perl-compatible pattern; its first group is compared with the field")),
        right_(o.real("right_score", 1.0, "score of a right answer")),
        format_(o.real("format_score", 0.0, "score of a wrong answer in the form asked for")),
        wrong_(o.real("wrong_score", 0.0, "score of any other answer")) {}

  float score(const dse::Answer& a) const {
    const std::string reply = a.reply;
    if (kind_ == "regex" && !regex_.has_group()) return float(regex_.find(reply) ? right_ : wrong_);
    const std::string truth = truth_of(a);
    if (kind_ == "exact") return float(trimmed(reply) == trimmed(truth) ? right_ : wrong_);
    if (kind_ == "regex") {
      const auto found = regex_.find(reply);
      return float(!found ? wrong_ : trimmed(std::string(found->group(1))) == trimmed(truth) ? right_ : format_);
    }
    // A field that holds the number alone has no marker.
    const auto expected = truth.find(marker_) == truth.npos ? answer_number(truth, "") : answer_number(truth, marker_);
    if (!expected)
      throw dse::Failure("the field '" + field_ + "' holds no number: " + truth.substr(0, 80), DSE_BAD_DATA);
    const auto given = answer_number(reply, marker_);
    if (!given) return float(wrong_);
    return float(*given == *expected ? right_ : format_);
  }

 private:
  // A text, or another value as it is written in the data: a number keeps its digits.
  std::string truth_of(const dse::Answer& a) const {
    if (a.metadata && !nlohmann::json::accept(a.metadata))
      throw dse::Failure("a record's other fields are no JSON: " + std::string(a.metadata).substr(0, 80), DSE_BAD_DATA);
    const auto members = a.metadata ? json_members(a.metadata) : JsonMembers();
    const auto it = members.find(field_);
    if (it == members.end())
      throw dse::Failure("a record has no field '" + field_ +
                             "': set the option 'field' (prompt: " + std::string(a.prompt).substr(0, 80) + ")",
                         DSE_BAD_DATA);
    return it->second[0] == '"' ? nlohmann::json::parse(it->second).get<std::string>() : compact_json(it->second);
  }

  std::string kind_, field_, marker_;
  Regex regex_;
  double right_, format_, wrong_;
};
DSE_REWARD("match", MatchReward)
