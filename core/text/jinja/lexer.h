// A chat template's source cut into tokens as Jinja cuts it, with trim_blocks and lstrip_blocks on.
//
//   std::vector<Token> tokens = tokenize("Hi {{ name }}");   // text, begin "{{", name, end "}}", end of source
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace dsengine::jinja {

struct Token {
  enum class Kind { text, begin, end, name, integer, real, string, symbol, source_end };
  Kind kind;
  std::string value;  // "{{" or "{%" for begin, "}}" or "%}" for end; a string's meaning, not its spelling
  int line;
};

// A wrong source is a SyntaxError.
struct SyntaxError {
  std::string what;
  int line;
};
std::vector<Token> tokenize(std::string_view source);

}  // namespace dsengine::jinja
