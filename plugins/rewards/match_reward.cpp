// Answers checked by rule, for tasks whose truth is in the data: a metadata field of the record says what is right.
//   exact    the reply, white space trimmed, is the field
//   number   the number after `marker` in the reply (GSM8K's "#### 72"; without a marker, the last number) is the one
//   in
//            the field, read the same way
//   regex    the reply matches `pattern`; with a capture group, the group is the field
// A reply that is wrong but in the form asked for (it has the marker and a number; it matches) gets `format_score`.
#include <dsengine/reward.hpp>
#include <nlohmann/json.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <optional>

namespace {

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// The first number of a text: sign, digits with thousands commas, decimals; "$1,200.50" is 1200.5.
std::optional<double> first_number(const std::string& text, size_t at) {
  at = text.find_first_of("0123456789", at);
  if (at == text.npos) return std::nullopt;
  std::string digits;
  size_t before = at;
  while (before > 0 && (text[before - 1] == '$' || text[before - 1] == '.')) --before;
  if (before > 0 && text[before - 1] == '-') digits = "-";
  if (at > 0 && text[at - 1] == '.') digits += "0.";
  for (bool point = at > 0 && text[at - 1] == '.'; at < text.size(); ++at) {
    const bool more = at + 1 < text.size() && text[at + 1] >= '0' && text[at + 1] <= '9';
    if (text[at] >= '0' && text[at] <= '9')
      digits += text[at];
    else if (text[at] == ',' && more)
      continue;
    else if (text[at] == '.' && more && !point)
      digits += '.', point = true;
    else
      break;
  }
  return std::strtod(digits.c_str(), nullptr);
}

std::optional<double> answer_number(const std::string& text, const std::string& marker) {
  if (!marker.empty()) {
    const auto at = text.rfind(marker);
    return at == text.npos ? std::nullopt : first_number(text, at + marker.size());
  }
  std::optional<double> last;  // the last run of digits, from its beginning
  for (size_t at = 0; (at = text.find_first_of("0123456789", at)) != text.npos;) {
    last = first_number(text, at);
    at = text.find_first_not_of("0123456789.,", at);
    if (at == text.npos) break;
  }
  return last;
}

class Regex {
 public:
  explicit Regex(const std::string& pattern) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    regex_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.c_str()), pattern.size(),
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &code, &offset, nullptr));
    if (regex_) return;
    unsigned char text[200] = "";
    pcre2_get_error_message(code, text, sizeof text);
    throw dse::Failure(
        "pattern: " + std::string(reinterpret_cast<char*>(text)) + " at character " + std::to_string(offset),
        DSE_BAD_OPTION);
  }
  // The first capture group (the whole match without one); nothing where it does not match. A pattern that runs away
  // does not match.
  std::optional<std::string> find(const std::string& text) const {
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> found(
        pcre2_match_data_create_from_pattern(regex_.get(), nullptr), pcre2_match_data_free);
    const int count =
        pcre2_match(regex_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, found.get(), nullptr);
    if (count < 1) return std::nullopt;
    const auto* at = pcre2_get_ovector_pointer(found.get()) + (count > 1 ? 2 : 0);
    return at[0] == PCRE2_UNSET ? "" : text.substr(at[0], at[1] - at[0]);
  }
  bool has_group() const {
    uint32_t groups = 0;
    pcre2_pattern_info(regex_.get(), PCRE2_INFO_CAPTURECOUNT, &groups);
    return groups > 0;
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::unique_ptr<pcre2_code, Free> regex_;
};

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
      return float(!found ? wrong_ : trimmed(*found) == trimmed(truth) ? right_ : format_);
    }
    // A field that holds the number alone has no marker.
    const auto expected = truth.find(marker_) == truth.npos ? answer_number(truth, "") : answer_number(truth, marker_);
    if (!expected)
      throw dse::Failure("the field '" + field_ + "' holds no number: " + truth.substr(0, 80), DSE_BAD_DATA);
    const auto given = answer_number(reply, marker_);
    if (!given) return float(wrong_);
    return float(std::abs(*given - *expected) <= 1e-9 * std::max(1.0, std::abs(*expected)) ? right_ : format_);
  }

 private:
  std::string truth_of(const dse::Answer& a) const {
    const auto json = a.metadata ? nlohmann::json::parse(a.metadata, nullptr, false) : nlohmann::json();
    const auto it = json.is_object() ? json.find(field_) : json.end();
    if (!json.is_object() || it == json.end())
      throw dse::Failure("a record has no field '" + field_ +
                             "': set the option 'field' (prompt: " + std::string(a.prompt).substr(0, 80) + ")",
                         DSE_BAD_DATA);
    return it->is_string() ? it->get<std::string>() : it->dump();
  }

  std::string kind_, field_, marker_;
  Regex regex_;
  double right_, format_, wrong_;
};
DSE_REWARD("match", MatchReward)
