#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/byte_level.h"
#include "text/normalizer.h"

namespace dsengine {
namespace {

constexpr const char* gpt2_words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Punctuation as Hugging Face's tables have it: ASCII's symbols count; the tables are of Unicode 8, so what
// became punctuation later does not, and two characters that ceased to be punctuation still do.
constexpr const char* punctuation =
    R"((?![\x{61D}\x{9FD}\x{A76}\x{C77}\x{C84}\x{1B7D}\x{1B7E}\x{2E43}-\x{2E4F}\x{2E52}-\x{2E5D}\x{10EAD})"
    R"(\x{10F55}-\x{10F59}\x{10F86}-\x{10F89}\x{1144B}-\x{1144F}\x{1145A}\x{1145B}\x{1145D})"
    R"(\x{11660}-\x{1166C})"
    R"(\x{116B9}\x{1183B}\x{11944}-\x{11946}\x{119E2}\x{11A3F}-\x{11A46}\x{11A9A}-\x{11A9C})"
    R"(\x{11A9E}-\x{11AA2}\x{11C41}-\x{11C45}\x{11C70}\x{11C71}\x{11EF7}\x{11EF8}\x{11FFF}\x{12FF1}\x{12FF2})"
    R"(\x{10D6E}\x{1B4E}\x{1B4F}\x{1B7F}\x{113D4}-\x{113D8}\x{11B00}-\x{11B09}\x{11BE1}\x{11F43}-\x{11F4F})"
    R"(\x{16D6D}-\x{16D6F}\x{1E5FF}\x{16E97}-\x{16E9A}\x{16FE2}\x{1E95E}\x{1E95F}])[\p{P}$+<=>^`|~\x{166D}\x{111C9}])";

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const std::string& name, const std::string& where) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  unsupported(where, "pre_tokenizer behavior", name,
              "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

struct Part {
  Span span;
  bool matches;
};

// Matches and what lies between them, in order.
void find_parts(std::string_view text, const Regex& pattern, bool invert, std::vector<Part>& parts) {
  parts.clear();
  size_t end = 0;
  pattern.for_each_match(text, [&](Span match) {
    if (end != match.begin) parts.push_back({{end, match.begin}, invert});
    parts.push_back({match, !invert});
    end = match.end;
  });
  if (end != text.size()) parts.push_back({{end, text.size()}, invert});
}

// Joins parts as `behavior` says; parts with matches == true are dropped afterwards only where removed.
void join_parts(std::vector<Part>& parts, Behavior behavior) {
  if (behavior == Behavior::removed || behavior == Behavior::isolated) return;
  const bool backward = behavior == Behavior::merged_with_next;
  if (backward) std::ranges::reverse(parts);
  size_t kept = 0;
  bool previous_matches = false;
  for (const Part part : parts) {
    const bool joins =
        behavior == Behavior::contiguous ? part.matches == previous_matches : part.matches && !previous_matches;
    previous_matches = part.matches;
    if (joins && kept > 0) {
      Span& last = parts[kept - 1].span;
      last = {std::min(last.begin, part.span.begin), std::max(last.end, part.span.end)};
    } else {
      parts[kept++] = part;
    }
  }
  parts.resize(kept);
  if (backward) std::ranges::reverse(parts);
}

void split(Pieces& pieces, const Regex& pattern, Behavior behavior, bool invert) {
  std::vector<Span> spans;
  spans.reserve(pieces.text.size() / 4);
  std::vector<Part> parts;
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const size_t begin = pieces.spans[i].begin;
    find_parts(pieces.at(i), pattern, invert, parts);
    join_parts(parts, behavior);
    for (const auto& [span, matches] : parts) {
      if (span.begin == span.end || (behavior == Behavior::removed && matches)) continue;
      spans.push_back({begin + span.begin, begin + span.end});
    }
  }
  if (spans.empty() || spans.front().begin != pieces.spans.front().begin) pieces.at_start = false;
  pieces.spans = std::move(spans);
}

PreTokenizer splitter(Regex pattern, Behavior behavior, bool invert = false) {
  return [pattern = std::move(pattern), behavior, invert](Pieces& pieces) { split(pieces, pattern, behavior, invert); };
}

// Rewrites every piece: `append(piece, first, text)` appends its new form to text.
template <class Append>
void rewrite(Pieces& pieces, Append&& append) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 4);
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const size_t begin = text.size();
    append(pieces.at(i), i == 0, text);
    pieces.spans[i] = {begin, text.size()};
  }
  pieces.text = std::move(text);
}

PreTokenizer byte_level(const TokenizerJson& json, const std::string& where) {
  const bool cuts = value_or(json, "use_regex", true);
  return [words = Regex(gpt2_words, where), cuts, prefix = value_or(json, "add_prefix_space", true)](Pieces& pieces) {
    if (prefix) {
      rewrite(pieces, [](std::string_view piece, bool, std::string& text) {
        text.append(piece.starts_with(' ') ? "" : " ").append(piece);
      });
    }
    if (cuts) split(pieces, words, Behavior::isolated, false);
    rewrite(pieces, [](std::string_view piece, bool, std::string& text) { append_byte_chars(piece, text); });
  };
}

PreTokenizer metaspace(const TokenizerJson& json, const std::string& where) {
  const auto mark = value_or<std::string>(json, "replacement", "▁");
  auto scheme = value_or<std::string>(json, "prepend_scheme", "always");
  if (!value_or(json, "add_prefix_space", true)) scheme = "never";  // the key's older name
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    unsupported(where, "Metaspace prepend_scheme", scheme, "always, first, never");
  }
  return [mark, scheme, space = Regex::literal(" ", where), marks = Regex::literal(mark, where),
          cuts = value_or(json, "split", true)](Pieces& pieces) {
    rewrite(pieces, [&](std::string_view piece, bool first, std::string& text) {
      const std::string marked = replace_all(std::string(piece), space, mark);
      const bool wanted = scheme == "always" || (scheme == "first" && first && pieces.at_start);
      text.append(wanted && !marked.starts_with(mark) ? mark : "").append(marked);
    });
    if (cuts) split(pieces, marks, Behavior::merged_with_next, false);
  };
}

PreTokenizer sequence(const TokenizerJson& json, const std::string& where) {
  std::vector<PreTokenizer> parts;
  for (const auto& part : json.at("pretokenizers")) parts.push_back(make_pre_tokenizer(part, where));
  return [parts = std::move(parts)](Pieces& pieces) {
    for (const auto& part : parts) part(pieces);
  };
}

}  // namespace

PreTokenizer make_pre_tokenizer(const TokenizerJson& json, const std::string& where) {
  if (json.is_null()) return [](Pieces&) {};
  const std::string type = type_of(json);
  const auto behavior = [&](const char* fallback) {
    return behavior_of(value_or<std::string>(json, "behavior", fallback), where);
  };
  if (type == "Sequence") return sequence(json, where);
  if (type == "ByteLevel") return byte_level(json, where);
  if (type == "Metaspace") return metaspace(json, where);
  if (type == "Split") {
    return splitter(make_pattern(json.at("pattern"), where), behavior("Isolated"), value_or(json, "invert", false));
  }
  if (type == "Digits") {
    const bool each = value_or(json, "individual_digits", false);
    return splitter(Regex("\\p{N}", where), each ? Behavior::isolated : Behavior::contiguous);
  }
  if (type == "Punctuation") return splitter(Regex(punctuation, where), behavior("Isolated"));
  if (type == "Whitespace")
    return splitter(Regex(fmt::format("[{0}]+|[^{0}\\s]+", Regex::rust_word), where), Behavior::removed, true);
  if (type == "WhitespaceSplit") return splitter(Regex("\\s", where), Behavior::removed);
  unsupported(where, "pre_tokenizer", type,
              "Sequence, ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace, WhitespaceSplit");
}

}  // namespace dsengine
