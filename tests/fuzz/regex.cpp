// A pattern (the first line), and its matches in a text (the rest).
#include "text/regex.h"

#include "fuzz.h"
#include "text/utf8.h"

using namespace dsengine;

FUZZ(text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view rest = text.substr(std::min(end + 1, text.size()));
  const Regex pattern(text.substr(0, end), "input");
  if (!is_valid_utf8(rest)) return;
  size_t last = 0;
  pattern.for_each_match(rest, [&](Span match) {
    if (match.begin < last || match.end < match.begin || match.end > rest.size()) std::abort();
    last = match.end;
  });
  const Regex literal = Regex::literal(rest, "input");
  Span whole;
  if (!rest.empty() && (!literal.find(rest, 0, whole) || whole != Span{0, rest.size()})) std::abort();
}
