// Numbers as people and models write them: "$1,200.50", "-3", "50%", "1/2", "2 1/2", "\frac{1}{2}", "1.5 × 10^3",
// "2e-7", "5 million".
//
//   std::optional<ExactNumber> n = number_in(reply, WhichNumber::last);
//
// A number is read whole or not at all: what is part of an expression, a range, a date, a ratio or a word, or can be
// read in two ways ("1 234", "0,5"), holds no number, rather than the number that its first or last digits would be.
// Percent signs, currencies and units are passed over; commas part thousands.
#pragma once
#include <string>

#include "exact_number.h"
#include "regex.h"

namespace {

enum class WhichNumber { first, last };

namespace number_text {

// The smallest piece of text that has to be read as a whole: digits, and what joins them. It never backtracks, so that
// no text runs it out of steps.
inline const std::string kRun = R"(
  (?<! \p{N} ) (?<! \p{L}\^ | \}\^ ) (?<! \p{L}\^\{ | \}\^\{ )          # not the exponent of a unit, cm^2
  (?: \\[dt]?frac \s*+ \{ \s*+ )?
  (?: (?<! [\p{L}\p{N}.…] ) \. (?= \p{N} ) )?
  (?! [²³¹⁰⁴-⁹₀-₉] ) \p{N}
  (?: \p{N}
    | (?: [.,_'’:] | \{,\} | \\[,!;:\ ] | [\x{A0}\x{2007}\x{2009}\x{202F}] | \h++:\h++
        | [eE] [-+−]?
        | \h*+ (?: \*\* | [-+−–‐‑*×·÷/⁄^±∓xX] | \\(?: times | cdot | div | pm ) ) \h*+ [({$£€¥]* [-+−]? [({$£€¥]*
        | \h*+ \} \s*+ \{ \s*+ | \h*+ (?: and \h++ )? \\[dt]?frac \s*+ \{ \s*+
        | \h++ (?= \p{N}{3} (?! \p{N} ) ) | \h++ (?: and \h++ )? (?= \p{N}+ \h*+ [/⁄] \h*+ \p{N} | [¼-¾⅐-⅞] )
      ) (?= \.? \p{N} )
  )*+)";

inline const std::string kWhole =
    R"( (?: [1-9][0-9]{0,2} (, | \{,\} | \\[,!;:\ ] | [\x{A0}\x{2007}\x{2009}\x{202F}] | [_'’] )
                                          [0-9]{3} (?: \g{-1} [0-9]{3} )* | [0-9]+ ) )";
inline const std::string kDecimal = "(?: " + kWhole + R"( (?: \. [0-9]+ )? | \. [0-9]+ ))";
// A run that is a number: a decimal with its power of ten, a power of ten, or a fraction with its whole part.
inline const std::string kNumber = "^ (?: (?<decimal> " + kDecimal + R"( )
           (?: [eE] (?<exponent> [-+−]? [0-9]+ )
             | \h* (?: [*×·xX] | \\(?: times | cdot ) ) \h* 10 \h* \^ \h* [({]* (?<exponent> [-+−]? [0-9]+ ) )?
         | (?<power> 10 ) \h* \^ \h* [({]* (?<exponent> [-+−]? [0-9]+ )
         | (?: (?<whole> [0-9]+ ) (?: \h+ (?: and \h+ )? | \h* (?= \\ ) ) )?
           (?: (?<top> )" + kDecimal +
                                   R"( ) \h* [/⁄] \h* (?<bottom> )" + kDecimal + R"( )
             | \\[dt]?frac \s* \{ \s* (?<top> )" +
                                   kDecimal + R"( ) \s* \} \s* \{ \s* (?<bottom> )" + kDecimal + R"( ) )
       ) \z)";

// Between two numbers that are one answer: a range, a choice, a share, a sum, hours and minutes.
inline const std::string kBetween =
    R"( (?: (?: to | or | through | out \h+ of | plus | minus | times | over | divided \h+ by ) \h+
  | (?i: h | hrs? | hours? | mins? | minutes? | ft | feet | foot | lbs? | pounds? | years? | months? | weeks? | days? | dollars?
       | km | m | kg ) \.? ,? \h* (?: and \h+ )? ))";

// What stands before a run: its sign, and marks around it.
inline const std::string kOpening = R"(
  (?<sign> [-+−]? ) (?<marks> (?: \\?[$£€¥₹₩₽¢] | \\[(\[] | [({\["'“‘`*|~≈] )* ) (?<inner> [-+−]? ) \z)";
// Before sign and marks: the number is part of a word, of an expression, or has another sign than it seems.
inline const std::string kBadBefore = R"(
  (?: [-+−–‐‑﹣－±∓] \h* | [-−] \h* \\ \p{L}+ \{? | (?<! [\p{L}\p{N}] ) [-−] \p{L}{1,3} \.?
    | [\p{L})\]}] (?: [*] | \h+ [*] \h+ | \h* [×·÷/⁄^] \h* | _ \{? | \h+ [xX] \h+ )
    | \\(?: times | cdot | div | pm | neq? ) \h* | [≠√^] \h* \{? | != \h* | \} \s* \{ \s*
    | \\?\b(?: sqrt (?: \[ [^\]]* \] )? | log | ln | exp | sin | cos | tan | abs ) \h*
    | \b(?i: minus | negative ) \h+
    | [0-9] (?: \h+ | \h* )" + kBetween +
                                      R"( )
  ) (?: \\?[$£€¥₹₩₽] | [({\["'`] )* \z)";
inline const std::string kWordBefore = R"( [\p{L}\p{N}_] \z)";  // where nothing stands between, or a sign, ( or [
inline const std::string kVariableBefore = R"( (?<! \p{L} ) \p{L} \h+ \z)";  // where a sign follows

// Behind a run: a power of ten in words, and what makes it part of something else.
inline const std::string kScale =
    R"(^ [)}\]*_]* [-\h]* (?: \\text \p{L}* \{ \h* )? (?i: (hundred) | (thousand) | (million) | (billion) | (trillion) )
                                      (?! \p{L} ))";
inline const std::string kBadAfter = R"(^
  (?: [xyznikeKMBT] (?! \p{L} ) | (?: bn | mn | mil ) (?! \p{L} ) | \p{L}+ [0-9] | \h* [xyz] (?! \p{L} )
    | [-\h]* (?i: dozen | score | gross | lakh | crore | squared | cubed ) (?! \p{L} )
    | \h+ and \h+ (?: an? \h+ | one[-\h] | two[-\h] | three[-\h] )? (?: half | halves | quarter | third | eighth )
    | \h* (?: [-–] \h* \p{L} (?! \p{L} ) | [−×·÷+±∓] | [*] \h* \p{L} (?! \p{L} ) | [/⁄] \h* [xyznab] (?! \p{L} ) )
    | \^ (?! \{? (?: \\circ | ° ) ) | ! \h* [-=*/+] | \.[({\\] | [(] \p{N}
    | (?: \h | \\[,;:!\ ] )* (?: [√π∞] | \\ (?! [%$\\)\],;:!\ ]
        | (?: text (?: rm | bf | it | sf | tt )? | mathrm | mathbf | mbox | circ | degree | q?quad | right ) (?! [a-z] ) ) )
    | [)}\]*_`]+ (?: \h* [-+−×·÷/⁄^] \h* [({]* [-+−]? | [({]+ ) [\p{N}xyz]
    | (?: \h+ | \h* )" + kBetween + R"( ) [({$£€¥-]* [0-9]
  ))";
inline const std::string kUnended = R"(^ (?: \.\.\. | …))";  // behind decimals: they go on

inline std::optional<int64_t> exponent_of(std::string_view text) {
  const bool negative = !text.empty() && text[0] != '+' && (text[0] < '0' || text[0] > '9');
  text.remove_prefix(std::min(text.find_first_of("0123456789"), text.size()));
  text.remove_prefix(std::min(text.find_first_not_of('0'), text.size()));
  if (text.size() > ExactNumber::kMostExponentDigits) return std::nullopt;
  const int64_t size = text.empty() ? 0 : std::stoll(std::string(text));
  return negative ? -size : size;
}

// The value of a run, without its sign.
inline std::optional<ExactNumber> value_of(std::string_view run) {
  static const Regex number(kNumber, PCRE2_EXTENDED | PCRE2_DUPNAMES);
  const auto found = number.find(run);
  if (!found) return std::nullopt;
  if (const auto top = found->group("top"); !top.empty()) {
    const auto whole = ExactNumber::decimal(found->group("whole"), 0);
    const auto above = ExactNumber::decimal(top, 0), below = ExactNumber::decimal(found->group("bottom"), 0);
    if (!whole || !above || !below || below->is_zero()) return std::nullopt;
    return found->group("whole").empty() ? *above / *below : *whole + *above / *below;
  }
  const auto exponent = exponent_of(found->group("exponent"));
  if (!exponent) return std::nullopt;
  return found->group("power").empty() ? ExactNumber::decimal(found->group("decimal"), *exponent)
                                       : ExactNumber::decimal("1", *exponent);
}

// Whether a number is negative, by what stands before it; nothing where it is no number of its own.
inline std::optional<bool> negative_after(std::string_view before) {
  static const Regex opening(kOpening, PCRE2_EXTENDED), bad(kBadBefore, PCRE2_EXTENDED),
      word(kWordBefore, PCRE2_EXTENDED), variable(kVariableBefore, PCRE2_EXTENDED);
  const auto marks = opening.find(before);
  if (!marks) return std::nullopt;
  const auto sign = marks->group("sign"), inner = marks->group("inner"), between = marks->group("marks");
  const auto rest = before.substr(0, marks->begin());
  if (!sign.empty() && !inner.empty()) return std::nullopt;
  if (bad.find(rest) || (sign.empty() && inner.empty() && bad.find(before))) return std::nullopt;
  const bool open = !between.empty() && between[0] != '(' && between[0] != '[';
  if (!(sign.empty() && open) && word.find(rest)) return std::nullopt;
  if (!sign.empty() && variable.find(rest)) return std::nullopt;
  return (!sign.empty() && sign != "+") || (!inner.empty() && inner != "+");
}

// The power of ten that stands behind a number in words; nothing where the number is part of something else.
inline std::optional<int64_t> scale_before(std::string_view after, bool has_decimals) {
  static const Regex scale(kScale, PCRE2_EXTENDED), bad(kBadAfter, PCRE2_EXTENDED), unended(kUnended, PCRE2_EXTENDED);
  if (bad.find(after) || (has_decimals && unended.find(after))) return std::nullopt;
  const auto found = scale.find(after);
  if (!found) return 0;
  constexpr int64_t powers[] = {2, 3, 6, 9, 12};
  for (uint32_t i = 0; i < 5; ++i)
    if (!found->group(i + 1).empty())
      return bad.find(after.substr(found->end())) ? std::nullopt : std::optional(powers[i]);
  return 0;
}

}  // namespace number_text

// The first or last number of a text; nothing where none is there, or what is there is not one number of its own.
inline std::optional<ExactNumber> number_in(std::string_view text, WhichNumber which) {
  static const Regex run(number_text::kRun, PCRE2_EXTENDED);
  constexpr size_t kAround = 64;  // bytes that can matter before and behind a run
  auto found = run.find(text);
  if (!found) return std::nullopt;
  while (which == WhichNumber::last) {
    auto next = run.find(text, found->end());
    if (!next) break;
    found = std::move(next);
  }
  const size_t begin = found->begin() - std::min(kAround, found->begin());
  const auto negative = number_text::negative_after(text.substr(begin, found->begin() - begin));
  const auto digits = text.substr(found->begin(), found->end() - found->begin());
  const auto scale = number_text::scale_before(text.substr(found->end(), kAround), digits.find('.') != digits.npos);
  auto value = negative && scale ? number_text::value_of(digits) : std::nullopt;
  if (value && *scale > 0) value = *value / *ExactNumber::decimal("1", -*scale);
  return value && *negative ? value->negated() : value;
}

}  // namespace
