// Text from files, models and plugins made fit for a terminal: no control character of theirs reaches it, none of C0
// (escape, zero, …) and none of C1 (0x80 to 0x9F), which some terminals obey too.
//
//   printable_line("last read: '\xff\n'")      // "last read: '? '"
//   printable_text("a\x1b[2J\nb")              // "a?[2J\nb"
//   shown(std::string(1000, 'x'))              // 200 characters: its beginning, "…", its end
#pragma once
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <type_traits>

namespace dsengine {

// One line: line ends and tabs become spaces, other control characters and bytes that are not UTF-8 become '?'.
std::string printable_line(std::string_view text);
// The same for a text of several lines: these and tabs stay.
std::string printable_text(std::string_view text);

// A value in an error's line: at most `most` characters of it, on one line.
constexpr size_t kMostShown = 200;
std::string shown(std::string_view value, size_t most = kMostShown);

// An error's line: of a text among the arguments, which a file may have given, it shows at most kMostShown characters.
template <class... Args>
std::string error_line(fmt::format_string<Args...> format, Args&&... args) {
  [[maybe_unused]] const auto argument = []<class T>(const T& value) {
    if constexpr (std::is_convertible_v<const T&, std::string_view>)
      return shown(value);
    else
      return value;
  };
  return fmt::format(fmt::runtime(format), argument(args)...);
}

// The first names of a list, and how many there are where not all are named.
template <class Range>
std::string shown_list(const Range& names) {
  constexpr size_t kMostNames = 8;
  std::string text;
  size_t count = 0;
  for (const auto& name : names)
    if (count++ < kMostNames) text += (count > 1 ? ", " : "") + shown(name);
  return count > kMostNames ? fmt::format("{}, … ({} in all)", text, count) : text;
}

}  // namespace dsengine
