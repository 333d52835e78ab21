// Text and numbers as HTML has them.
//
//   html_text("<b> & \"c\"")      // "&lt;b&gt; &amp; &quot;c&quot;": inert as text and in an attribute
//   number_text(0.012345)          // "0.01235"
//   number_text(NAN)               // "–"
#pragma once
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <string_view>

#include "base/printable.h"

namespace dsengine {

inline std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : printable_text(text)) switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  return out;
}

// Four digits that count.
inline std::string number_text(double value) {
  if (!std::isfinite(value)) return "–";
  const double size = std::abs(value);
  return size >= 1000 && size < 1e7 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
}

}  // namespace dsengine
