#include "text/tokenizer_json.h"

#include "base/regular_file.h"

namespace dsengine {

std::string_view without_code(std::string_view what) {
  const size_t end = what.find("] ");
  return what.starts_with('[') && end != std::string_view::npos ? what.substr(end + 2) : what;
}

TokenizerJson read_tokenizer_json(const std::filesystem::path& path) {
  return parse_tokenizer_json(read_text(path), path.string());
}

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& where) {
  constexpr int most_depth = 32;
  const auto depth_guard = [&](int depth, TokenizerJson::parse_event_t, TokenizerJson&) {
    DSE_CHECK_USER(depth <= most_depth, "{}: JSON nested deeper than {} levels", where, most_depth);
    return true;
  };
  try {
    return TokenizerJson::parse(text, depth_guard);
  } catch (const TokenizerJson::exception& error) {  // a number too large is no parse_error
    throw UserError(error_line("{}: not valid JSON: {}", where, without_code(error.what())));
  }
}

}  // namespace dsengine
