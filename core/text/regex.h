// A regular expression as Hugging Face's tokenizers read it (Oniguruma's syntax, Unicode classes), run by
// PCRE2's compiler. Thread-safe. A pattern that needs unreasonable work on a text is a UserError, not a hang.
// Debian's PCRE2 10.42 knows Unicode 14: characters up to Unicode 16 are added to the general categories.
//
//   Regex words("\\p{L}+", "tokenizer.json");
//   words.for_each_match("two words", [&](Span match) { use(match.begin, match.end); });
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace dsengine {

struct Span {  // bytes [begin, end) of a text
  size_t begin = 0, end = 0;
  bool operator==(const Span&) const = default;
};

class Regex {
 public:
  // What Rust's regex crate, which parts of Hugging Face's code use, means by \w; for within [ ].
  static constexpr const char* rust_word = R"(\p{Alphabetic}\p{L}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";

  // `where` names the file in errors.
  Regex(std::string_view pattern, std::string where);
  static Regex literal(std::string_view text, std::string where);

  // The first match at or after `from` of `text` (valid UTF-8); false if there is none.
  bool find(std::string_view text, size_t from, Span& match) const;
  bool matches(std::string_view text) const;

  // Left to right, without overlap; an empty match right after a match does not count.
  template <class Found>
  void for_each_match(std::string_view text, Found&& found) const {
    constexpr size_t none = static_cast<size_t>(-1);
    size_t last_end = none;
    Span match;
    for (size_t from = 0; from <= text.size() && find(text, from, match);) {
      if (match.begin == match.end && match.end == last_end) {
        from = next_char(text, from);
        continue;
      }
      found(match);
      from = last_end = match.end;
    }
  }

 private:
  struct Code;
  static size_t next_char(std::string_view text, size_t at);

  std::shared_ptr<const Code> code_;
  std::string pattern_, where_;
};

}  // namespace dsengine
