#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/check.h"
#include "base/printable.h"
#include "text/newer_unicode.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

constexpr uint32_t match_limit = 10'000'000;
constexpr size_t jit_stack_start = 32 << 10, jit_stack_most = 8 << 20;  // bytes

// What a match writes to; one for each thread, because making one costs more than most matches.
struct Scratch {
  Scratch()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(jit_stack_start, jit_stack_most, nullptr)) {
    if (!data || !context || !stack) throw std::bad_alloc();
    pcre2_set_match_limit(context, match_limit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::string message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

pcre2_code* compile(const std::string& pattern, int& error) {
  PCRE2_SIZE at = 0;
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
}

// Rewrites what PCRE2 reads otherwise than Oniguruma: \s (U+180E), \w (marks), \h (hexadecimal digits in
// Oniguruma), \p{Script} (extensions too in PCRE2), POSIX classes, \u0041.
class Translation {
 public:
  Translation(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\' && at_ + 1 < pattern_.size()) {
        escape();
      } else if (!in_class_) {
        in_class_ = pattern_[at_] == '[';
        copy(1);
      } else {
        class_item();
      }
    }
    return std::move(result_);
  }

 private:
  void copy(size_t count) {
    result_.append(pattern_, at_, count);
    at_ += count;
  }
  void put(std::string_view text, size_t instead_of) {
    result_ += text;
    at_ += instead_of;
  }
  void refuse(std::string_view what) {
    user_error(error_line("{}: {} within [ ] is not supported in pattern {}", where_, what, pattern_));
  }

  void class_item() {
    const std::string_view rest = pattern_.substr(at_);
    if (rest.starts_with("[:punct:]")) return put("\\p{P}\\p{S}" + newer_characters("P") + newer_characters("S"), 9);
    if (rest.starts_with("[:alpha:]")) return put("\\p{Alphabetic}" + newer_characters("L"), 9);
    if (rest.starts_with("[:space:]")) return put("\\p{White_Space}", 9);
    if (rest.starts_with("[")) refuse("[");
    if (rest.starts_with("&&")) refuse("&&");
    in_class_ = rest[0] != ']';
    copy(1);
  }

  // A set of characters: its content within [ ], and a set of its own, negated or not, elsewhere.
  void set(std::string_view content, bool negated) {
    if (in_class_ && negated) refuse(pattern_.substr(at_, 2));
    put(in_class_ ? std::string(content) : fmt::format("[{}{}]", negated ? "^" : "", content), 2);
  }

  void escape() {
    const char letter = pattern_[at_ + 1];
    switch (letter) {
      case 's':
        return put("\\p{White_Space}", 2);
      case 'S':
        return put("\\P{White_Space}", 2);
      case 'w':
      case 'W':  // Oniguruma's table has Latin-1's superscripts and fractions besides.
        return set("\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" + newer_characters("L") +
                       newer_characters("M") + newer_characters("Nd"),
                   letter == 'W');
      case 'h':
      case 'H':
        return set("0-9A-Fa-f", letter == 'H');
      case 'p':
      case 'P':
        return property();
      case 'u':
        return put(fmt::format("\\x{{{}}}", pattern_.substr(at_ + 2, 4)), 6);
      default:
        return copy(2);
    }
  }

  void property() {
    const size_t end = pattern_.find('}', at_);
    if (end == std::string_view::npos || pattern_[at_ + 2] != '{') return copy(2);
    const std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    int ignored = 0;
    if (const std::string newer = newer_characters(name); !newer.empty()) {
      const bool negated = pattern_[at_ + 1] == 'P';
      if (in_class_ && negated) return copy(end + 1 - at_);  // [ ] cannot take characters away
      const std::string content = fmt::format("\\p{{{}}}{}", name, newer);
      return put(in_class_ ? content : fmt::format("[{}{}]", negated ? "^" : "", content), end + 1 - at_);
    }
    pcre2_code* script = compile(fmt::format("\\p{{sc:{}}}", name), ignored);
    if (!script) return copy(end + 1 - at_);
    pcre2_code_free(script);
    put(fmt::format("\\{}{{sc:{}}}", pattern_[at_ + 1], name), end + 1 - at_);
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string result_;
};

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled) : compiled(compiled) {}
  ~Code() { pcre2_code_free(compiled); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* compiled;
};

Regex::Regex(std::string_view pattern, std::string where) : pattern_(pattern), where_(std::move(where)) {
  int error = 0;
  pcre2_code* compiled = compile(Translation(pattern, where_).run(), error);
  DSE_CHECK_USER(compiled, "{}: cannot compile pattern {}: {}", where_, pattern, message(error));
  code_ = std::make_shared<Code>(compiled);
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without it the interpreter runs: slower, never wrong
}

Regex Regex::literal(std::string_view text, std::string where) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\^$.[]|()?*+{}-#").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return Regex(pattern, std::move(where));
}

bool Regex::find(std::string_view text, size_t from, Span& match) const {
  thread_local Scratch scratch;
  const int result = pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  DSE_CHECK_USER(result >= 0, "{}: pattern {} fails on a text of {} bytes: {}", where_, pattern_, text.size(),
                 message(result));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
  match = {offsets[0], offsets[1]};
  DSE_CHECK_USER(from <= match.begin && match.begin <= match.end, "{}: pattern {} moves a match's beginning", where_,
                 pattern_);  // \\K can
  return true;
}

bool Regex::matches(std::string_view text) const {
  Span ignored;
  return find(text, 0, ignored);
}

size_t Regex::next_char(std::string_view text, size_t at) { return at + (at < text.size() ? char_bytes(text, at) : 1); }

}  // namespace dsengine
